UPDATE users SET name = 'x' WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

UPDATE users SET name = 'x'
--> Write on all shards (primary)

UPDATE users SET name = 'x' WHERE name = 'y'
--> Write on all shards (primary)

UPDATE users SET name = 'x' WHERE id IN (1, 2)
--> PassThrough to the shards of users in (integer[1], integer[2]) (primary)
-->   Shards: s1

UPDATE users SET name = 'x' WHERE id IN (1, 3)
--> PassThrough to the shards of users in (integer[1], integer[2]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

UPDATE users SET name = 'x' WHERE id = ANY ($1)
--> PassThrough to the shards of users in elements of $1 (primary)

UPDATE users SET name = 'x', age = age + 1 WHERE id = $1 RETURNING *
--> PassThrough to the shard of users = $1 (primary)

UPDATE users u SET name = o.status FROM orders o WHERE o.user_id = u.id AND u.id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

UPDATE users u SET name = o.status FROM orders o WHERE o.user_id = u.id
--> Write on all shards (primary)

UPDATE users u SET name = o.status FROM orders o WHERE u.id = 5
--> Write on the shard of users = integer[0] (primary)
-->   Shards: s0
-->   Given: all rows of orders

UPDATE users u SET name = c.name FROM countries c WHERE c.code = u.name AND u.id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

UPDATE users SET name = (SELECT status FROM orders WHERE user_id = users.id LIMIT 1) WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

UPDATE users SET name = (SELECT status FROM orders LIMIT 1) WHERE id = 5
--> Write on the shard of users = integer[1] (primary)
-->   Shards: s0
-->   Given: the rows of a query that are computed first

UPDATE users SET (name, age) = ('x', 3) WHERE id = 5
--> PassThrough to the shard of users = integer[2] (primary)
-->   Shards: s0

UPDATE users SET (name, age) = (SELECT status, 1 FROM orders WHERE user_id = users.id) WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

UPDATE users SET name = DEFAULT WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

UPDATE ONLY users SET name = 'x' WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

UPDATE users SET name = now()::text WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

-- changing the shard key
UPDATE users SET id = 6 WHERE id = 5
--> PassThrough to the shard of users = integer[1], users stored = integer[0] (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

UPDATE users SET id = 7 WHERE id = 5
--> PassThrough to the shard of users = integer[1], users stored = integer[0] (primary)
-->   Shards: s0

UPDATE users SET id = 1 WHERE id = 5
--> PassThrough to the shard of users = integer[1], users stored = integer[0] (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

UPDATE users SET id = id WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

UPDATE users SET id = users.id, name = 'x' WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

UPDATE users SET id = $1 WHERE id = $2
--> PassThrough to the shard of users = $2, users stored = $1 (primary)

UPDATE users SET id = id + 1 WHERE id = 5
--> Write on the shard of users = integer[1] (primary)
-->   Shards: s0
-->   Rows that change their shard key move

UPDATE users SET (id, name) = (5, 'x') WHERE id = 5
--> PassThrough to the shard of users = integer[2], users stored = integer[0] (primary)
-->   Shards: s0

UPDATE users SET (id, name) = (SELECT 5, 'x') WHERE id = 5
--> Write on the shard of users = integer[2] (primary)
-->   Shards: s0
-->   Rows that change their shard key move

UPDATE users SET id = DEFAULT WHERE id = 5
--> Write on the shard of users = integer[0] (primary)
-->   Shards: s0
-->   Rows that change their shard key move

UPDATE orders SET user_id = NULL WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0], orders stored = null (primary)
-->   Shards: s0

UPDATE profiles SET user_id = NULL WHERE user_id = 5
--> PassThrough to the shard of profiles = integer[0], profiles stored = null (primary)
-->   Shards: s0

UPDATE tickets SET id = DEFAULT WHERE user_id = 5
--> Refuse 0A000: column "id" of the sharded table "tickets" takes its value from a sequence
--> DETAIL: Each shard's own values would not be unique, and the router cannot give any here.
--> HINT: Give the column "id" a value in the INSERT.

DELETE FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

DELETE FROM users
--> Write on all shards (primary)

DELETE FROM users WHERE id IN (1, 2, 3)
--> PassThrough to the shards of users in (integer[0], integer[1], integer[2]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

DELETE FROM users u USING orders o WHERE o.user_id = u.id AND o.user_id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

DELETE FROM users u USING orders o WHERE o.user_id = u.id
--> Write on all shards (primary)

DELETE FROM users WHERE id = 5 RETURNING id, now()
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

DELETE FROM users WHERE id IN (SELECT user_id FROM orders WHERE user_id = 5) AND id = 5
--> PassThrough to the shards of users = integer[1], orders (= integer[0] and = integer[1]) (primary)
-->   Shards: s0

DELETE FROM users WHERE id = (SELECT 5)
--> Write on all shards (primary)

DELETE FROM ONLY users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

DELETE FROM events WHERE day < '2025-01-01'
--> PassThrough to the shards of events < string[0] (primary)
-->   Shards: s0

DELETE FROM events WHERE day < '2027-01-01'
--> PassThrough to the shards of events < string[0] (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

DELETE FROM settings WHERE key = 'x'
--> PassThrough to shard s0 (primary)

DELETE FROM settings WHERE key IN (SELECT name FROM users)
--> Write on shard s0 (primary)
-->   Given: the rows of a query that are computed first

DELETE FROM settings WHERE key IN (SELECT name FROM users WHERE id = 5)
--> PassThrough to the shard of users = integer[0], first shard only (primary)
-->   Shards: s0

UPDATE settings SET value = 'x'
--> PassThrough to shard s0 (primary)

UPDATE audit.users SET note = 'x'
--> PassThrough to shard s0 (primary)

UPDATE orders_2024 SET status = 'x' WHERE user_id = 5
--> PassThrough to the shard of orders_2024 = integer[1] (primary)
-->   Shards: s0

UPDATE deep_view SET name = 'x'
--> Refuse 0A000: writing through the view "deep_view" of a sharded table is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the table itself.

-- what is computed for each row, and what one server computes once
UPDATE users SET name = random()::text
--> Write on all shards (primary)

UPDATE users SET name = gen_random_uuid()::text WHERE id IN ($1, $2)
--> PassThrough to the shards of users in ($1, $2) (primary)

UPDATE users SET name = (SELECT random()::text)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users SET name = r::text FROM random() AS r
--> Refuse 0A000: function "random" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

UPDATE users SET name = r::text FROM (SELECT random() AS r) AS v
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users SET name = 'x' WHERE age = (SELECT max(age) FROM users)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users SET name = (SELECT name FROM countries LIMIT 1)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users SET name = (SELECT name FROM countries WHERE code = users.email)
--> Write on all shards (primary)

UPDATE users SET name = steady()
--> Refuse 0A000: function "steady" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

UPDATE users SET created = DEFAULT
--> Write on all shards (primary)
-->   The time is given

UPDATE users SET age = pure(age)
--> Write on all shards (primary)

UPDATE keyed SET v = nextval('tickets_id_seq')
--> Refuse 0A000: function "nextval" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

UPDATE tickets SET subject = 'x'
--> Write on all shards (primary)

-- around it
EXPLAIN UPDATE users SET name = 'x'
--> Write on all shards (primary)

COPY (UPDATE users SET name = 'x' RETURNING id) TO STDOUT
--> Write on all shards (primary)

COPY (UPDATE users SET name = 'x' WHERE id IN ($1, $2) RETURNING id) TO STDOUT
--> PassThrough to the shards of users in ($1, $2) (primary)

WITH gone AS (DELETE FROM users RETURNING id) SELECT count(*) FROM gone
--> Write on all shards (primary)
-->   Then a query over gone, on one shard

WITH gone AS (DELETE FROM users RETURNING id) DELETE FROM orders
--> Write on all shards (primary)

-- merge
MERGE INTO users u USING orders o ON u.id = o.user_id AND o.user_id = 5 WHEN MATCHED THEN UPDATE SET name = o.status
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

MERGE INTO users u USING (SELECT * FROM orders WHERE user_id = 5) o ON u.id = o.user_id WHEN MATCHED THEN UPDATE SET name = o.status WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.user_id, 'x')
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

MERGE INTO users u USING orders o ON u.id = o.user_id WHEN MATCHED THEN DELETE
--> Write on all shards (primary)

MERGE INTO users u USING (VALUES (5, 'x')) v (id, name) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
--> PassThrough to the shards of users in (integer[0]), users stored in (integer[0]) (primary)
-->   Shards: s0

MERGE INTO users u USING (SELECT $1::int8 AS id) v ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)
--> PassThrough to the shards of users in ($1::bigint), users stored in ($1::bigint) (primary)

MERGE INTO users u USING (VALUES (5, 'x')) v (id, name) ON u.name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
--> Refuse 0A000: this use of a sharded table needs the rows of all shards together, which is not supported yet
--> DETAIL: The rows of the result are not made from rows of one sharded table: it is on the optional side of an outer join, or in a subquery.
--> HINT: Restrict the shard key so that one shard has all the rows.

MERGE INTO users u USING (VALUES (5, 'x')) v (id, name) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id + 1, v.name)
--> Refuse 0A000: the shard of the new rows of table "users" is not known
--> DETAIL: The shard key "id" is neither a constant nor a parameter, nor a column that equals the shard key of the rows it comes from.
--> HINT: Compute the shard key first and pass it as a value.

MERGE INTO users u USING (VALUES (5, 'x')) v (id, name) ON u.id = v.id WHEN NOT MATCHED BY SOURCE THEN DELETE
--> Refuse 0A000: this use of a sharded table needs the rows of all shards together, which is not supported yet
--> DETAIL: The rows of the result are not made from rows of one sharded table: it is on the optional side of an outer join, or in a subquery.
--> HINT: Restrict the shard key so that one shard has all the rows.

MERGE INTO settings s USING (VALUES ('a', 'b')) v (k, v) ON s.key = v.k WHEN MATCHED THEN UPDATE SET value = v.v WHEN NOT MATCHED THEN INSERT VALUES (v.k, v.v)
--> PassThrough to shard s0 (primary)

-- Other columns of a group go with a primary key, which rows that are given do not have.
UPDATE users SET name = 'x' WHERE EXISTS (SELECT e.kind FROM events e WHERE e.kind = users.name GROUP BY e.id)
--> Refuse 0A000: joining "users" and "events" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

-- One value for each row.
UPDATE orders SET total = nextval('tickets_id_seq') WHERE user_id = 5
--> PassThrough to the shard of orders = integer[1], first shard only (primary)
-->   Shards: s0
-->   May use a sequence
-->   Guards: [0]

UPDATE orders SET total = nextval('tickets_id_seq')
--> Refuse 0A000: function "nextval" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

-- Queries that depend on nothing around them are computed first.
DELETE FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED) RETURNING *
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users SET name = (SELECT max(status) FROM orders)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

UPDATE users u SET name = s.n::text FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) s WHERE s.n = u.id
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

WITH x AS (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) UPDATE users u SET name = x.n::text FROM x WHERE x.n = u.id
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

WITH x AS (SELECT name FROM users), y AS (SELECT * FROM x) DELETE FROM orders USING y WHERE status = y.name
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

-- One that does is not.
UPDATE users SET name = (SELECT max(status) FROM orders WHERE orders.id = users.id)
--> Write on all shards (primary)
-->   Given: all rows of orders

UPDATE users SET name = (SELECT max(status) FROM orders WHERE orders.id = users.id AND orders.id > (SELECT max(id) FROM users))
--> Write on all shards (primary)
-->   Given: all rows of orders
-->   Given: the rows of a query that are computed first

UPDATE users SET name = (SELECT max(status) FROM orders WHERE user_id = users.id AND orders.id > (SELECT max(id) FROM users))
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

MERGE INTO users u USING (VALUES (1, 'a'), (2, 'b')) AS v (k, n) ON u.id = v.k WHEN MATCHED THEN UPDATE SET name = n WHEN NOT MATCHED THEN INSERT (id, name) VALUES (k, n)
--> PassThrough to the shards of users in (integer[0], integer[2]), users stored in (integer[0], integer[2]) (primary)
-->   Shards: s1

MERGE INTO jobs j USING (VALUES (1, 'a'), (2, 'b'), (3, 'c')) AS v (k, n) ON j.id = v.k WHEN MATCHED THEN UPDATE SET state = n WHEN NOT MATCHED THEN INSERT VALUES (k, n)
--> PassThrough to the shards of jobs in (integer[0], integer[2], integer[4]), jobs stored in (integer[0], integer[2], integer[4]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

MERGE INTO jobs j USING orders ON j.id = orders.id WHEN NOT MATCHED THEN INSERT (id, state) VALUES (orders.id, orders.status)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first, to each shard those of its keys

MERGE INTO users u USING settings s ON u.id = s.value::int WHEN MATCHED THEN DELETE
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

MERGE INTO users u USING orders o ON u.id = o.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.id, o.status)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first, to each shard those of its keys
-->   The time is given

MERGE INTO users u USING orders o ON u.id = o.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.id + 1, o.status)
--> Refuse 0A000: the shard of the new rows of table "users" is not known
--> DETAIL: The shard key "id" is neither a constant nor a parameter, nor a column that equals the shard key of the rows it comes from.
--> HINT: Compute the shard key first and pass it as a value.

EXPLAIN DELETE FROM users WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 10)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first
