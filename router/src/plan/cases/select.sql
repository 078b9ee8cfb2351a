-- by key
SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE 5 = id AND name = 'x'
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = $1
--> PassThrough to the shard of users = $1 (read)

SELECT * FROM users WHERE id = $1::int8
--> PassThrough to the shard of users = $1::bigint (read)

SELECT name FROM public.users u WHERE u.id = '7'
--> PassThrough to the shard of users = string[0] (read)
-->   Shards: s0

SELECT name FROM "users" WHERE "users"."id" = -3
--> PassThrough to the shard of users = -integer[0] (read)
-->   Shards: s1

SELECT * FROM users WHERE id IN (1, 2, 3)
--> Append of the shards of users in (integer[0], integer[1], integer[2]) (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = ANY ('{1,2,3}')
--> Append of the shards of users in elements of string[0] (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = ANY ($1)
--> Append of the shards of users in elements of $1 (read)

SELECT * FROM users WHERE id = ANY (ARRAY[1, 2])
--> Append of the shards of users in (integer[0], integer[1]) (read)
-->   Shards: s1

SELECT * FROM users WHERE id = ANY ($1::bigint[])
--> Append of the shards of users in elements of $1::bigint (read)

SELECT * FROM users
--> Append of all shards (read)

SELECT id, name FROM users WHERE age > 30
--> Append of all shards (read)

SELECT * FROM users WHERE id = 1 OR id = 2
--> Append of the shards of users (= integer[0] or = integer[1]) (read)
-->   Shards: s1

SELECT * FROM users WHERE id = 1 OR name = 'x'
--> Append of all shards (read)

SELECT * FROM users WHERE id = 1 AND id = 2
--> Append of the shards of users (= integer[0] and = integer[1]) (read)
-->   Shards: s1

SELECT count(*) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM users

SELECT count(*) FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users ORDER BY id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT * FROM users ORDER BY id

SELECT * FROM users LIMIT 10
--> Merge of all shards (read)
-->   Limit
-->   Text: SELECT * FROM users LIMIT (10)

SELECT 1
--> PassThrough to any shard (read)

SELECT now()
--> PassThrough to any shard (read)

SELECT random()
--> PassThrough to any shard (read: primary)

SELECT * FROM countries
--> PassThrough to any shard (read)

SELECT * FROM settings
--> PassThrough to shard s0 (read)

SELECT * FROM nowhere
--> PassThrough to shard s0 (read)
-->   Unknown: nowhere

-- without what inherits
SELECT avg(v) FROM ONLY metrics
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Fetch ONLY metrics (v) from all shards
-->   Rows made by all shards
-->     Text:  SELECT pg_catalog.sum(v) AS "switchyard 1", pg_catalog.count(v) AS "switchyard 2" FROM ONLY metrics HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT CASE WHEN pg_catalog.sum("switchyard 2") OPERATOR(pg_catalog.>) 0 THEN pg_catalog.sum("switchyard 1") OPERATOR(pg_catalog./) pg_catalog.sum("switchyard 2") END AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT id FROM ONLY users WHERE id > (SELECT avg(id) FROM users)
--> Refuse 0A000: joining "users" and "users" across shards is not supported yet
--> DETAIL: Their shard keys are not known to be equal, or the tables are not colocated. It reads a table both with and without what inherits from it (ONLY).
--> HINT: Join colocated tables on their shard keys, or restrict the shard keys so that one shard has all the rows.

SELECT name, count(*) FROM own_orders GROUP BY 1 ORDER BY 2
--> Workspace (read)
-->   Reason: view "own_orders" reads the sharded table "orders"
-->   Fetch own_orders (name) from all shards
-->   Guards: [0, 1]

-- the name of the table that each row is in
SELECT relname, users.* FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Append of all shards (read)

SELECT relname, u.id FROM ONLY users u, pg_class WHERE u.age > 3 AND u.tableoid = pg_class.oid AND pg_class.relname <> 'x' ORDER BY u.id
--> Merge of all shards (read)
-->   Merge by 2 bigint
-->   Text: SELECT relname, u.id FROM ONLY users u, pg_class WHERE u.age > 3 AND u.tableoid = pg_class.oid AND pg_class.relname <> 'x' ORDER BY u.id

SELECT pg_class.relname, c.* FROM countries c JOIN pg_class ON c.tableoid = pg_class.oid
--> PassThrough to shard s0 (read)

-- what else it knows is its own
SELECT relname, relpages FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT * FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT relname FROM users, pg_class WHERE users.tableoid = pg_class.oid OR age = 1
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT relname FROM pg_class LEFT JOIN users ON users.tableoid = pg_class.oid
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT relname, tableoid FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT count(*) FROM users, pg_class WHERE users.tableoid = pg_class.oid + 1
--> Refuse 0A000: aggregates are not supported across shards yet
--> DETAIL: It reads the system catalogue, which differs from shard to shard.
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT pg_class.oid FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT relname, age FROM users, pg_class WHERE users.tableoid = pg_class.oid ORDER BY name
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It reads the system catalogue, which differs from shard to shard.
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT relname, users.ctid FROM users, pg_class WHERE users.tableoid = pg_class.oid
--> Refuse 0A000: system column "ctid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.
