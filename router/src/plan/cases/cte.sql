WITH u AS (SELECT * FROM users WHERE id = 5) SELECT * FROM u
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH u AS (SELECT * FROM users) SELECT * FROM u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH u AS (SELECT * FROM users) SELECT * FROM u
--> Append of all shards (read)

WITH u AS MATERIALIZED (SELECT * FROM users) SELECT * FROM u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH u AS (SELECT * FROM users), o AS (SELECT * FROM orders) SELECT * FROM u JOIN o ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH u AS (SELECT * FROM users), o AS (SELECT * FROM orders) SELECT * FROM u JOIN o ON o.user_id = u.id
--> Append of all shards (read)

WITH u (k) AS (SELECT id FROM users) SELECT * FROM u WHERE k = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH u AS (SELECT * FROM users LIMIT 5) SELECT * FROM u WHERE id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

-- mentioned twice: each mention has its own keys
WITH u AS (SELECT * FROM users) SELECT * FROM u a, u b WHERE a.id = 1 AND b.id = 5
--> PassThrough to the shard of users = integer[0], users = integer[1] (read)
-->   Refuse joining "users" and "users" across shards is not supported yet

WITH u AS (SELECT * FROM users) SELECT * FROM u a JOIN u b ON a.id = b.id WHERE b.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- a CTE hides a table of the same name
WITH users AS (SELECT 1 AS id) SELECT * FROM users
--> PassThrough to any shard (read)

WITH countries AS (SELECT id AS code FROM users) SELECT * FROM countries
--> Append of all shards (read)

-- but not in itself, unless recursive
WITH users AS (SELECT * FROM users WHERE id = 5) SELECT * FROM users
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

WITH a AS (SELECT * FROM users), b AS (SELECT * FROM a WHERE id = 5) SELECT * FROM b
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- not mentioned
WITH u AS (SELECT * FROM users) SELECT 1
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

WITH c AS (SELECT * FROM countries) SELECT * FROM c
--> PassThrough to any shard (read)

WITH c AS (SELECT * FROM countries) SELECT * FROM users JOIN c ON c.code = name
--> Append of all shards (read)

WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 10) SELECT sum(n) FROM t
--> PassThrough to any shard (read)

WITH RECURSIVE t AS (SELECT * FROM orders WHERE user_id = 5 UNION ALL SELECT o.* FROM orders o JOIN t ON o.id = t.total WHERE o.user_id = 5) SELECT * FROM t
--> PassThrough to the shard of orders = integer[0], orders = integer[1] (read)
-->   Shards: s0

WITH RECURSIVE t AS (SELECT * FROM orders WHERE user_id = 5 UNION ALL SELECT o.* FROM orders o JOIN t ON o.user_id = t.user_id) SELECT * FROM t
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- a condition does not reach into a recursion
WITH RECURSIVE t AS (SELECT * FROM orders UNION ALL SELECT o.* FROM orders o JOIN t ON o.id = t.id) SELECT * FROM t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

WITH RECURSIVE u AS (SELECT * FROM users) SELECT * FROM u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- writes
WITH d AS (DELETE FROM orders WHERE user_id = 5 RETURNING *) SELECT * FROM d
--> PassThrough to the shard of orders = integer[0] (primary)
-->   Shards: s0

WITH d AS (DELETE FROM orders WHERE user_id = 5 RETURNING *) INSERT INTO order_items (user_id, order_id) SELECT user_id, id FROM d
--> PassThrough to the shard of orders = integer[0] (primary)
-->   Shards: s0

WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders WHERE user_id = 5 RETURNING *) SELECT * FROM d JOIN users u ON u.id = d.user_id
--> PassThrough to the shard of orders = integer[0] (primary)
-->   Shards: s0

WITH d AS (DELETE FROM orders WHERE user_id = 5) SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of orders = integer[0], users = integer[1] (primary)
-->   Shards: s0

WITH d AS (DELETE FROM orders WHERE user_id = 5) SELECT * FROM users WHERE id = 1
--> PassThrough to the shard of orders = integer[0], users = integer[1] (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

WITH i AS (INSERT INTO users (id, name) VALUES (5, 'x') RETURNING id) INSERT INTO orders (id, user_id) SELECT 1, id FROM i
--> PassThrough to the shards of users stored = integer[0], orders in (integer[0]) (primary)
-->   Shards: s0

WITH i AS (INSERT INTO users (id, name) VALUES ($1, $2) RETURNING *) SELECT * FROM i
--> PassThrough to the shard of users stored = $1 (primary)

WITH i AS (INSERT INTO settings VALUES ('a', 'b') RETURNING *) SELECT * FROM i
--> PassThrough to shard s0 (primary)

WITH i AS (INSERT INTO settings VALUES ('a', 'b')) SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[2], first shard only (primary)
-->   Shards: s0

WITH i AS (INSERT INTO countries VALUES ('a', 'b')) SELECT 1
--> Broadcast to all shards (reference table)

WITH u AS (UPDATE users SET name = 'x' WHERE id = 5 RETURNING *) SELECT count(*) FROM u
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

-- nested WITH
SELECT * FROM (WITH u AS (SELECT * FROM users) SELECT * FROM u) t WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5 AND EXISTS (WITH o AS (SELECT * FROM orders WHERE orders.user_id = users.id) SELECT 1 FROM o)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- a query over all that is returned
WITH d AS (DELETE FROM orders RETURNING user_id, total) SELECT count(*), sum(total) FROM d
--> Write on all shards (primary)
-->   Then a query over d, on one shard

WITH d AS (DELETE FROM orders RETURNING user_id, total * 2 AS twice) SELECT count(*), sum(twice) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d, users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

WITH d AS (UPDATE orders SET total = 0 WHERE user_id IN ($1, $2) RETURNING *) SELECT max(total) FROM d
--> PassThrough to the shards of orders in ($1, $2) (primary)

WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d ORDER BY total LIMIT 1
--> Write on all shards (primary)
-->   Then a query over d, on one shard

COPY (WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d) TO STDOUT
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

EXPLAIN WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

EXPLAIN ANALYZE WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

CREATE TABLE t AS WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

DECLARE c CURSOR FOR WITH d AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

COPY (UPDATE users SET id = id + 1 RETURNING id) TO STDOUT
--> Refuse 0A000: COPY of what a statement returns that writes on several shards is not supported
--> HINT: Run the statement by itself: its RETURNING gives the rows.

EXPLAIN UPDATE users SET id = id + 1
--> Write on all shards (primary)

EXPLAIN ANALYZE UPDATE users SET id = id + 1
--> Refuse 0A000: EXPLAIN of this statement

-- what a write returns is on its shards, wherever it is used
WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id) SELECT * FROM users WHERE EXISTS (SELECT 1 FROM d)
--> Refuse 0A000: joining "orders" and "d" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id) SELECT * FROM users WHERE id IN (SELECT user_id FROM d)
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id) UPDATE users SET name = 'x' WHERE EXISTS (SELECT 1 FROM d)
--> Refuse 0A000: joining "orders" and "d" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id) UPDATE users SET name = 'x' WHERE EXISTS (SELECT 1 FROM d WHERE d.user_id = users.id)
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id), u AS (UPDATE users SET name = 'x' WHERE EXISTS (SELECT 1 FROM d) RETURNING id) SELECT id FROM u
--> Refuse 0A000: joining "orders" and "d" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

WITH d AS (DELETE FROM orders WHERE total < 0 RETURNING user_id), u AS (UPDATE users SET name = (SELECT max(user_id)::text FROM d) RETURNING id) SELECT id FROM u
--> Refuse 0A000: joining "orders" and "d" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT user_id, (SELECT count(*) FROM orders o WHERE o.user_id = d.user_id) FROM d
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT user_id, (SELECT count(*) FROM orders) FROM d
--> Refuse 0A000: joining "orders" and "orders" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT user_id, rank() OVER (ORDER BY user_id) FROM d
--> Write on all shards (primary)
-->   Then a query over d, on one shard

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT d.user_id FROM d LEFT JOIN users u ON u.id = d.user_id
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT d.user_id, u.id FROM d FULL JOIN users u ON u.id = d.user_id
--> Refuse 0A000: FULL JOIN is not supported across shards yet

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT u.id FROM users u LEFT JOIN d ON u.id = d.user_id
--> Write on all shards (primary)

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT x, user_id FROM generate_series(1, 3) x LEFT JOIN d ON user_id = x
--> Write on all shards (primary)
-->   Then a query over d, on one shard

-- a part of a statement does not run by itself where it takes something from the rest
WITH countries AS (SELECT 1 AS code), d AS (DELETE FROM orders WHERE user_id IN (SELECT code FROM countries) RETURNING user_id) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

WITH c AS (SELECT 1 AS x), d AS (DELETE FROM orders RETURNING user_id) SELECT count(*) FROM d, c
--> Write on all shards (primary)
-->   Then a query over d, on one shard

-- nor where more may be returned than the table's own columns
WITH d AS (UPDATE orders SET total = 0 FROM countries WHERE code = 'x' RETURNING *) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

WITH d AS (DELETE FROM orders USING countries c WHERE c.code = 'x' RETURNING c.name) SELECT count(*) FROM d
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

WITH d AS (DELETE FROM orders RETURNING user_id) SELECT x FROM generate_series(1, 3) x WHERE x NOT IN (SELECT user_id FROM d)
--> Write on all shards (primary)
-->   Then a query over d, on one shard

WITH d AS (DELETE FROM orders RETURNING user_id) INSERT INTO users (id) SELECT user_id FROM d WHERE NOT EXISTS (SELECT 1 FROM d e)
--> Write on all shards (primary)
-->   Then an insert of rows of d, each on its shard

WITH i AS (INSERT INTO users (id, name) VALUES (1, 'x'), (3, 'y') RETURNING id) SELECT id FROM i
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Refuse the default of column "created" is not supported across shards

WITH i AS (INSERT INTO profiles SELECT user_id, 'x' FROM orders RETURNING user_id) SELECT user_id FROM i
--> Write on all shards (primary)
