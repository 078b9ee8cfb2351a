INSERT INTO users (id, name) VALUES (5, 'x')
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (name, id) VALUES ($1, $2) RETURNING *
--> PassThrough to the shard of users stored = $2 (primary)

INSERT INTO users VALUES (5, 'a@b', 'x', 3, '2024-01-01')
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users VALUES (5)
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (1, 'x'), (2, 'y')
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards of the rows: s1, s1

INSERT INTO users (id, name) VALUES (1, 'x'), (3, 'y')
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards of the rows: s1, s0

INSERT INTO users (id, name) VALUES ($1, 'x'), ($2, 'y')
--> PassThrough to the shards of users stored in ($1, $2) (primary)

INSERT INTO users (id) VALUES ('5')
--> PassThrough to the shard of users stored = string[0] (primary)
-->   Shards: s0

INSERT INTO users (id) VALUES (5.0)
--> PassThrough to the shard of users stored = decimal[0] (primary)
-->   Shards: s0

INSERT INTO users (id) VALUES (5.4)
--> PassThrough to the shard of users stored = decimal[0] (primary)
-->   Refuse the shard of the new row cannot be determined: table "users"

INSERT INTO users (id) VALUES (-5)
--> PassThrough to the shard of users stored = -integer[0] (primary)
-->   Shards: s1

INSERT INTO users (id) VALUES ('5'::int4)
--> PassThrough to the shard of users stored = string[0]::integer (primary)
-->   Shards: s0

INSERT INTO accounts (name) VALUES (5)
--> PassThrough to the shard of accounts stored = integer[0] (primary)
-->   Shards: s1

INSERT INTO accounts (name) VALUES ('abc')
--> PassThrough to the shard of accounts stored = string[0] (primary)
-->   Shards: s1

-- a varchar is cut without an error if what is cut is blank
INSERT INTO accounts (name) VALUES ('abc                        ')
--> PassThrough to the shard of accounts stored = string[0] (primary)
-->   Shards: s0

INSERT INTO codes (code) VALUES ('ab   ')
--> PassThrough to the shard of codes stored = string[0] (primary)
-->   Shards: s1

-- the key is missing, NULL or DEFAULT
INSERT INTO users (name) VALUES ('x')
--> PassThrough to the shard of users stored = null (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (NULL, 'x')
--> PassThrough to the shard of users stored = null (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (DEFAULT, 'x')
--> PassThrough to the shard of users stored = null (primary)
-->   Shards: s0

INSERT INTO users DEFAULT VALUES
--> PassThrough to the shard of users stored = null (primary)
-->   Shards: s0

INSERT INTO profiles (bio) VALUES ('x')
--> PassThrough to the shard of profiles stored = null (primary)
-->   Shards: s0

INSERT INTO profiles (user_id, bio) VALUES (NULL, 'x')
--> PassThrough to the shard of profiles stored = null (primary)
-->   Shards: s0

INSERT INTO profiles DEFAULT VALUES
--> PassThrough to the shard of profiles stored = null (primary)
-->   Shards: s0

INSERT INTO keyed (v) VALUES ('x')
--> Insert of rows of keyed stored = a value computed first

INSERT INTO keyed (id, v) VALUES (DEFAULT, 'x')
--> Insert of rows of keyed stored = a value computed first

INSERT INTO keyed DEFAULT VALUES
--> Insert of rows of keyed stored = a value computed first

INSERT INTO keyed (id, v) VALUES (gen_random_uuid(), 'x')
--> Insert of rows of keyed stored = a value computed first

INSERT INTO users (id) VALUES (2 + 3)
--> Insert of rows of users stored = a value computed first

INSERT INTO users (id) VALUES ((SELECT max(id) FROM users))
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards

INSERT INTO users (id) SELECT 5
--> PassThrough to the shards of users stored in (integer[0]) (primary)
-->   Shards: s0

INSERT INTO users (id, name) SELECT $1, name FROM countries
--> PassThrough to the shard of users stored = $1 (primary)

INSERT INTO users (id, name) SELECT $1::int8, name FROM countries LIMIT 1
--> PassThrough to the shards of users stored in ($1::bigint) (primary)

-- sequences
INSERT INTO tickets (user_id, subject) VALUES (5, 'x')
--> Insert of rows of tickets stored = integer[0]
-->   Shards of the rows: s0
-->   May use a sequence

INSERT INTO tickets (id, user_id, subject) VALUES (1, 5, 'x')
--> PassThrough to the shard of tickets stored = integer[1] (primary)
-->   Shards: s0

INSERT INTO tickets (id, user_id, subject) VALUES (DEFAULT, 5, 'x')
--> Insert of rows of tickets stored = integer[0]
-->   Shards of the rows: s0
-->   May use a sequence

INSERT INTO tickets (id, user_id, subject) VALUES (nextval('tickets_id_seq'), 1, 'x')
--> Insert of rows of tickets stored = integer[1]
-->   Shards of the rows: s1
-->   May use a sequence
-->   Guards: [0]

INSERT INTO audit_log (message) VALUES ('x')
--> PassThrough to shard s0 (primary)
-->   May use a sequence

INSERT INTO audit_log (message) VALUES ('x') RETURNING id
--> PassThrough to shard s0 (primary)
-->   May use a sequence

-- INSERT … SELECT
INSERT INTO orders (id, user_id) SELECT id, user_id FROM order_items WHERE user_id = 5
--> PassThrough to the shard of order_items = integer[0] (primary)
-->   Shards: s0

INSERT INTO orders (id, user_id) SELECT order_id, user_id FROM order_items
--> Write on all shards (primary)

INSERT INTO orders (id, user_id) SELECT id, 5 FROM users WHERE id = 5
--> PassThrough to the shards of users = integer[1], orders stored in (integer[0]) (primary)
-->   Shards: s0

INSERT INTO orders (id, user_id) SELECT 1, u.id FROM users u WHERE u.id = $1 RETURNING id
--> PassThrough to the shard of users = $1 (primary)

INSERT INTO orders (id, user_id) SELECT id, age FROM users WHERE id = 5
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id, age) from the shard of users = integer[0]
-->     Only: id = 5

INSERT INTO orders (id, user_id) SELECT id, user_id + 1 FROM orders WHERE user_id = 5
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (id, user_id) from the shard of orders = integer[1]
-->     Only: user_id = 5

INSERT INTO profiles SELECT id, name FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

INSERT INTO profiles SELECT * FROM profiles WHERE user_id = 5
--> PassThrough to the shard of profiles = integer[0] (primary)
-->   Shards: s0

INSERT INTO profiles (bio) SELECT name FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0], profiles stored = null (primary)
-->   Shards: s0

INSERT INTO orders (id, user_id) SELECT max(id), 5 FROM orders WHERE user_id = 5
--> PassThrough to the shard of orders = integer[1], orders stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO orders (id, user_id) SELECT count(*), user_id FROM orders WHERE user_id = 5 GROUP BY user_id
--> PassThrough to the shard of orders = integer[0] (primary)
-->   Shards: s0

INSERT INTO orders (id, user_id) SELECT count(*), max(user_id) FROM orders WHERE user_id = 5
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (user_id) from the shard of orders = integer[0]
-->     Only: user_id = 5

INSERT INTO settings SELECT name, 'x' FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[1], first shard only (primary)
-->   Shards: s0

INSERT INTO settings SELECT name, 'x' FROM users WHERE id = 1
--> PassThrough to the shard of users = integer[1], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together

INSERT INTO settings SELECT name, 'x' FROM users
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards

INSERT INTO settings SELECT code, name FROM countries
--> PassThrough to shard s0 (primary)

INSERT INTO users (id, name) SELECT 1, key FROM settings
--> PassThrough to the shards of users stored in (integer[0]), first shard only (primary)
-->   Refuse the statement needs the first shard and another one together

INSERT INTO users (id, name) SELECT 5, key FROM settings
--> PassThrough to the shards of users stored in (integer[0]), first shard only (primary)
-->   Shards: s0

INSERT INTO users (id) VALUES (5) UNION ALL VALUES (5)
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

INSERT INTO users (id, name) SELECT v.id, v.name FROM (VALUES (5, 'a'), (5, 'b')) v (id, name)
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards: s0

INSERT INTO users (id, name) SELECT v.id, v.name FROM (VALUES (1, 'a'), (3, 'b')) v (id, name)
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Refuse the default of column "created" is not supported across shards

INSERT INTO users (id) SELECT * FROM unnest($1::int8[])
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

INSERT INTO users (id) SELECT generate_series(1, 10)
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

WITH x AS (SELECT 5 AS id) INSERT INTO users (id) SELECT id FROM x
--> PassThrough to the shards of users stored in (integer[0]) (primary)
-->   Shards: s0

INSERT INTO users (id, name) WITH x AS (SELECT * FROM users WHERE id = 5) SELECT id, name FROM x
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

-- ON CONFLICT
INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO NOTHING
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT DO NOTHING
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, email) VALUES (5, 'x') ON CONFLICT (email) DO NOTHING
--> Refuse 0A000: ON CONFLICT without the shard key "id" is not supported
--> DETAIL: A conflicting row of table "users" may be on another shard.
--> HINT: Make the shard key part of the unique index and of the conflict target.

INSERT INTO orders (id, user_id) VALUES (1, 5) ON CONFLICT (user_id, id) DO UPDATE SET total = orders.total + 1 WHERE orders.status = 'x'
--> PassThrough to the shard of orders stored = integer[1] (primary)
-->   Shards: s0

INSERT INTO products (id, sku) VALUES (5, 'x') ON CONFLICT DO NOTHING
--> Refuse 0A000: ON CONFLICT without the shard key "id" is not supported
--> DETAIL: A conflicting row of table "products" may be on another shard.
--> HINT: Make the shard key part of the unique index and of the conflict target.

INSERT INTO products (id, sku) VALUES (5, 'x') ON CONFLICT (id) DO NOTHING
--> PassThrough to the shard of products stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO products (id, sku) VALUES (5, 'x') ON CONFLICT ON CONSTRAINT products_sku_key DO NOTHING
--> Refuse 0A000: ON CONFLICT without the shard key "id" is not supported
--> DETAIL: A conflicting row of table "products" may be on another shard.
--> HINT: Make the shard key part of the unique index and of the conflict target.

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT ON CONSTRAINT users_pkey DO NOTHING
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET id = excluded.id, name = 'y'
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET id = 7
--> PassThrough to the shard of users stored = integer[0], users stored = integer[2] (primary)
-->   Shards: s0

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET id = users.id + 1
--> Refuse 0A000: changing the shard key "id" of table "users" is not supported
--> DETAIL: The row would have to move to another shard.
--> HINT: Delete the row and insert it with the new key.

INSERT INTO users (id, name) VALUES (5, 'x') ON CONFLICT (id) DO UPDATE SET name = (SELECT name FROM countries LIMIT 1)
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

-- other columns may have any value
INSERT INTO users (id, created, age) VALUES (5, now(), (SELECT count(*) FROM orders WHERE user_id = 5))
--> PassThrough to the shard of orders = integer[1], users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id, age) VALUES (5, (SELECT count(*) FROM orders))
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (id) from all shards

INSERT INTO users AS u (id) VALUES (5) RETURNING u.id
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO users (id) OVERRIDING SYSTEM VALUE VALUES (5)
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s0

INSERT INTO orders_2024 (id, user_id) VALUES (1, 5)
--> PassThrough to the shard of orders_2024 stored = integer[1] (primary)
-->   Shards: s0

INSERT INTO regions VALUES ('kr', 'Korea')
--> PassThrough to the shard of regions stored = string[0] (primary)
-->   Shards: s0

INSERT INTO regions VALUES (NULL, 'nowhere')
--> PassThrough to the shard of regions stored = null (primary)
-->   Shards: s1

INSERT INTO events VALUES ('2026-02-01', 'x')
--> PassThrough to the shard of events stored = string[0] (primary)
-->   Shards: s1

INSERT INTO events VALUES (now(), 'x')
--> Insert of rows of events stored = a value computed first

INSERT INTO events VALUES ('today', 'x')
--> PassThrough to the shard of events stored = string[0] (primary)
-->   Refuse the shard of the new row cannot be determined: table "events"

INSERT INTO order_view VALUES (1, 'x')
--> Refuse 0A000: writing through the view "order_view" of a sharded table is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the table itself.

INSERT INTO nowhere VALUES (1)
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Unknown: nowhere

INSERT INTO pg_class VALUES (1)
--> Refuse 0A000: writing the system relation "pg_class" is not supported

-- rows of several shards
INSERT INTO profiles (user_id, bio) VALUES (1, 'x'), (3, 'y'), (2, random()::text) RETURNING user_id
--> PassThrough to the shards of profiles stored in (integer[0], integer[2], integer[4]) (primary)
-->   Shards of the rows: s1, s0, s1

INSERT INTO keyed (v, id) VALUES ('a', '6e8bc430-9c3a-11d9-9669-0800200c9a66'), ('b', '6e8bc430-9c3a-11d9-9669-0800200c9a67')
--> PassThrough to the shards of keyed stored in (string[1], string[3]) (primary)
-->   Shards of the rows: s0, s1

-- one value for all rows, which each shard would have for itself
INSERT INTO profiles (user_id, bio) VALUES (1, 'x'), (3, my_stable(1))
--> PassThrough to the shards of profiles stored in (integer[0], integer[2]) (primary)
-->   Refuse function "my_stable" is not supported across shards: it is not known to the router
-->   May use a sequence
-->   Unknown: my_stable

INSERT INTO summed (id) VALUES (1), (3)
--> PassThrough to the shards of summed stored in (integer[0], integer[1]) (primary)
-->   Refuse writing table "summed" on several shards in one statement is not supported: a trigger of it runs once for a statement, and would run once on each shard

INSERT INTO profiles (user_id) VALUES (1), (3, 'y')
--> PassThrough to the shards of profiles stored in (integer[0], integer[1]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

INSERT INTO profiles (user_id, bio) VALUES (1, (SELECT max(name) FROM users)), (3, 'y')
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards

EXPLAIN INSERT INTO profiles (user_id, bio) VALUES (1, 'x'), (3, 'y')
--> PassThrough to the shards of profiles stored in (integer[0], integer[2]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

-- values of the moment, which are given to all shards
INSERT INTO users (id, name) VALUES (1, 'x'), (3, now()::text), (2, upper(CURRENT_DATE::text)) ON CONFLICT (id) DO UPDATE SET created = now()
--> PassThrough to the shards of users stored in (integer[0], integer[2], integer[3]) (primary)
-->   Shards of the rows: s1, s0, s1

INSERT INTO users VALUES (1, 'x'), (3, 'y')
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards of the rows: s1, s0

INSERT INTO users (id, created) VALUES (1, DEFAULT), (3, '2026-01-01')
--> PassThrough to the shards of users stored in (integer[0], integer[1]) (primary)
-->   Shards of the rows: s1, s0

INSERT INTO users (id, name) VALUES (1, 'x'), (3, 'y') RETURNING now()
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards of the rows: s1, s0

INSERT INTO users (id, name) VALUES (1, 'x'), (3, statement_timestamp()::text)
--> PassThrough to the shards of users stored in (integer[0], integer[2]) (primary)
-->   Shards of the rows: s1, s0

-- rows of a query: where their keys stay
INSERT INTO profiles (user_id, bio) SELECT id, name FROM users
--> Write on all shards (primary)

INSERT INTO profiles (user_id, bio) SELECT user_id, status FROM orders WHERE user_id IN (1, 3) AND total > 5 RETURNING *
--> PassThrough to the shards of orders in (integer[0], integer[1]) (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet

INSERT INTO profiles (user_id) SELECT user_id FROM orders ORDER BY total RETURNING user_id
--> Refuse 0A000: storing rows of table "profiles" on several shards in one statement is not supported yet
--> DETAIL: RETURNING in the order of the query's rows is not supported where they are sent to other shards.
--> HINT: Restrict the shard key of the rows it comes from to one value.

INSERT INTO profiles (user_id) SELECT user_id FROM orders LIMIT 5
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (user_id) from all shards

INSERT INTO profiles (user_id, bio) SELECT user_id, count(*)::text FROM orders GROUP BY user_id
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (user_id) from all shards

INSERT INTO profiles (user_id) SELECT id FROM orders
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (id) from all shards

INSERT INTO profiles (user_id, bio) SELECT id, now()::text FROM users
--> Write on all shards (primary)
-->   The time is given

INSERT INTO profiles AS p (user_id, bio) SELECT id, name FROM users ON CONFLICT (user_id) DO UPDATE SET bio = excluded.bio WHERE p.bio IS NULL
--> Write on all shards (primary)

-- keys that are computed first
INSERT INTO keyed (v) VALUES ('a')
--> Insert of rows of keyed stored = a value computed first

INSERT INTO keyed (v) VALUES ('a'), ('b')
--> Insert of rows of keyed stored in (a value computed first, a value computed first)

INSERT INTO keyed VALUES (gen_random_uuid(), 'a'), (DEFAULT, 'b'), ('6e8bc430-9c3a-11d9-9669-0800200c9a66', 'c')
--> Insert of rows of keyed stored in (a value computed first, a value computed first, string[2])

INSERT INTO profiles (user_id) VALUES (1 + 1), ($1)
--> Insert of rows of profiles stored in (a value computed first, $1)

INSERT INTO profiles (user_id) VALUES (nextval('some_seq')), (5)
--> Insert of rows of profiles stored in (a value computed first, integer[1])
-->   May use a sequence
-->   Guards: [0]

INSERT INTO profiles (user_id) VALUES ((SELECT max(id) FROM users))
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards

-- rows of a query: where their keys do not stay
INSERT INTO profiles (user_id, bio) SELECT id, 'x' FROM orders ON CONFLICT DO NOTHING
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (id) from all shards

INSERT INTO profiles (user_id) SELECT nextval('some_seq') FROM users
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards
-->   May use a sequence
-->   Guards: [0]

INSERT INTO profiles (user_id) SELECT g FROM generate_series(1, 10) AS g
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

-- functions that return sets: one row of values stands for several, on one shard only if the key is given
INSERT INTO users (id, age) VALUES (1, generate_series(1, 3))
--> PassThrough to the shard of users stored = integer[0] (primary)
-->   Shards: s1

INSERT INTO users (id) VALUES (generate_series(1, 3))
--> Refuse 0A000: a set-returning function in VALUES is not supported where the row's shard depends on what it returns
--> HINT: Write INSERT … SELECT.

INSERT INTO users (id, age) VALUES (1, generate_series(1, 3)), (2, 5)
--> PassThrough to the shards of users stored in (integer[0], integer[3]) (primary)
-->   Shards: s1

INSERT INTO users (id, age) VALUES (1, (SELECT max(g) FROM generate_series(1, 3) g)), (2, 5)
--> PassThrough to the shards of users stored in (integer[0], integer[3]) (primary)
-->   Shards of the rows: s1, s1

INSERT INTO tickets (user_id, subject) VALUES (generate_series(1, 3), 'x')
--> Refuse 0A000: a set-returning function in VALUES is not supported where the row's shard depends on what it returns
--> HINT: Write INSERT … SELECT.

-- nothing but defaults
INSERT INTO keyed DEFAULT VALUES RETURNING id
--> Insert of rows of keyed stored = a value computed first

INSERT INTO keyed (v) DEFAULT VALUES
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "keyed" (not parsed). It is no query.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

INSERT INTO tickets DEFAULT VALUES
--> Insert of rows of tickets stored = null
-->   Shards of the rows: s0
-->   May use a sequence

INSERT INTO settings DEFAULT VALUES
--> PassThrough to shard s0 (primary)

-- constants that are NULL are keys of rows that are stored, and equal nothing
INSERT INTO flags (id) SELECT (NULL::int4)::int8 FROM users
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards

INSERT INTO events (day) SELECT (NULL::timestamptz)::date FROM settings
--> PassThrough to the shards of events stored in (null::timestamp with time zone::date), first shard only (primary)
-->   Refuse the statement needs the first shard and another one together

INSERT INTO events (day) SELECT v.d FROM settings, (VALUES (NULL::date), ('2025-01-01')) AS v (d)
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch settings (key) from shard s0, or read in place

INSERT INTO events (day) SELECT v.d FROM (VALUES (NULL::date), ('2025-01-01')) AS v (d)
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

SELECT * FROM events e JOIN (VALUES (NULL::date), ('2025-01-01')) AS v (d) ON e.day = v.d
--> Append of all shards (read)

-- what is returned of rows that are sent to other shards is computed there
INSERT INTO profiles (user_id, bio) SELECT id, 'x' FROM orders RETURNING user_id
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (id) from all shards

INSERT INTO profiles (user_id, bio) SELECT id, 'x' FROM orders RETURNING user_id IN (SELECT id FROM users)
--> Refuse 0A000: joining "orders" and "users" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated. A subquery in ON CONFLICT or RETURNING would see the rows of one shard.
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

INSERT INTO users (id) SELECT user_id + 1 FROM orders ON CONFLICT (id) DO UPDATE SET email = (SELECT 'x')
--> Refuse 0A000: the default of column "created" is not supported across shards
--> DETAIL: Each shard would compute a value of its own. A subquery in ON CONFLICT or RETURNING would see the rows of one shard.
--> HINT: Compute the value first and pass it as a parameter.

-- defaults of functions of extensions, which give each row a value of its own
INSERT INTO tokens (id) VALUES (1), (2)
--> PassThrough to the shards of tokens stored in (integer[0], integer[1]) (primary)
-->   Shards of the rows: s1, s1

UPDATE tokens SET token = uuid_generate_v4()
--> Write on all shards (primary)

-- the shard key is a default, and the rows are of a query
INSERT INTO keyed (v) SELECT email FROM users
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (email) from all shards

INSERT INTO keyed (v) SELECT v FROM keyed ON CONFLICT DO NOTHING
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch keyed (v) from all shards

-- common table expressions in front
WITH x AS (SELECT user_id FROM orders) INSERT INTO profiles (user_id) SELECT user_id + 1 FROM x
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (user_id) from all shards

WITH x AS (SELECT 1 AS id UNION ALL SELECT 3) INSERT INTO users (id) SELECT id FROM x RETURNING id
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

WITH x AS (SELECT 1 AS id) INSERT INTO profiles (user_id) WITH y AS (SELECT id + 1 AS id FROM x) SELECT id FROM y
--> Refuse 0A000: this use of a sharded table needs the rows of all shards together, which is not supported yet
--> DETAIL: The rows of the result are not made from rows of one sharded table: it is on the optional side of an outer join, or in a subquery. The query is not found in its text.
--> HINT: Restrict the shard key so that one shard has all the rows.

-- rows of a list that need those of other shards
INSERT INTO profiles VALUES ((SELECT max(id) + 1 FROM users), 'x')
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards

INSERT INTO profiles VALUES (1, (SELECT max(name) FROM users)), (3, 'x')
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards

INSERT INTO profiles VALUES (1, (SELECT max(name) FROM users)), (3, DEFAULT)
--> Refuse 0A000: a statement that writes and needs rows of several shards is not supported yet
--> DETAIL: The shard key of "users" is not restricted.
--> HINT: Restrict every shard key in it to one value, or join the tables on their shard keys.

INSERT INTO profiles VALUES ($1, (SELECT max(key) FROM settings)), ($2, 'x') RETURNING *
--> PassThrough to the shards of profiles stored in ($1, $2), first shard only (primary)

INSERT INTO profiles VALUES (1, (SELECT max(name) FROM users)) RETURNING *
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards

INSERT INTO profiles VALUES (1, (SELECT max(name) FROM users)), (3, (SELECT max(name) FROM users)) RETURNING *
--> Refuse 0A000: a statement that writes and needs rows of several shards is not supported yet
--> DETAIL: The shard key of "users" is not restricted.
--> HINT: Restrict every shard key in it to one value, or join the tables on their shard keys.

-- what the rows are brought by would be in the catalogue: it is computed first
INSERT INTO profiles (user_id, bio) SELECT oid, relname FROM pg_class
--> Insert of a query's rows, each on its shard
-->   The query is computed first, in the transaction
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

INSERT INTO accounts (name) SELECT tablename FROM pg_tables
--> Insert of a query's rows, each on its shard
-->   The query is computed first, in the transaction
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

INSERT INTO accounts (name, balance) SELECT 'users'::regclass::text || g, g FROM generate_series(1, 3) g
--> Insert of a query's rows, each on its shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

INSERT INTO users (id) OVERRIDING USER VALUE VALUES (5), (6)
--> PassThrough to the shards of users stored in (integer[0], integer[1]) (primary)
-->   Shards of the rows: s0, s1

INSERT INTO tags OVERRIDING USER VALUE VALUES (5, 'x')
--> Refuse 0A000: this write of the reference table "tags" is not supported
--> DETAIL: Each shard would compute a value of its own: the default of column "id".
--> HINT: Compute the value first and pass it as a parameter.

INSERT INTO tags OVERRIDING USER VALUE SELECT id, name FROM users
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id, name) from all shards
-->   May use a sequence

-- rows of several shards in a table of the first
INSERT INTO settings SELECT status, count(*)::text FROM orders GROUP BY status ORDER BY 1 RETURNING *
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (status) from all shards
-->   Guards: [0]

INSERT INTO settings VALUES ('most', (SELECT max(id)::text FROM users))
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id) from all shards

INSERT INTO audit_log (message, user_id) SELECT name, id FROM users ON CONFLICT DO NOTHING
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (id, name) from all shards
-->   May use a sequence

INSERT INTO settings OVERRIDING USER VALUE SELECT name, email FROM users
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (email, name) from all shards

WITH u AS (SELECT name FROM users LIMIT 3) INSERT INTO settings SELECT name, 'x' FROM u
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards
