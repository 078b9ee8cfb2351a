-- one shard may do anything
SELECT name, count(*) FROM users WHERE id = 5 GROUP BY name HAVING count(*) > 1 ORDER BY 2 LIMIT 3
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0
-->   Guards: [2]

SELECT sum(age) + 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(age)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1" + 1 FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT coalesce(sum(age), 0) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(age)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT coalesce( "switchyard 1" , 0) FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT count(*) OVER () FROM users
--> Workspace (read)
-->   Reason: window functions are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id, rank() OVER (PARTITION BY name ORDER BY age) FROM users
--> Workspace (read)
-->   Reason: window functions are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, name, age) from all shards

SELECT id, rank() OVER w FROM users WINDOW w AS (ORDER BY age)
--> Workspace (read)
-->   Reason: window functions are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

SELECT name FROM users GROUP BY name
--> Merge of all shards (read)
-->   Merge by 2 text
-->   One row of those with equal keys
-->   Columns shown: 1
-->   Text: SELECT name, (name) COLLATE pg_catalog."C" AS "switchyard 1" FROM users GROUP BY name ORDER BY 2 NULLS LAST

SELECT id FROM users GROUP BY id
--> Merge of all shards (read)
-->   Text: SELECT id FROM users GROUP BY id

SELECT 1 FROM users HAVING count(*) > 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (count(*)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT 1 FROM (SELECT coalesce(pg_catalog.sum("switchyard 1"), 0)::pg_catalog.int8 AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard" WHERE ( "switchyard 1" > 1)

SELECT 1 FROM users HAVING true
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT DISTINCT name FROM users
--> Merge of all shards (read)
-->   Merge by 2 text
-->   One row of those with equal keys
-->   Columns shown: 1
-->   Text: SELECT DISTINCT name, (name) COLLATE pg_catalog."C" AS "switchyard 1" FROM users ORDER BY 2

SELECT DISTINCT ON (name) * FROM users
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM users OFFSET 5
--> Merge of all shards (read)
-->   Offset
-->   Text: SELECT * FROM users

SELECT * FROM users FETCH FIRST 5 ROWS ONLY
--> Merge of all shards (read)
-->   Limit
-->   Text: SELECT * FROM users LIMIT (5)

SELECT * FROM users FETCH FIRST 5 ROWS WITH TIES
--> Workspace (read)
-->   Reason: LIMIT and OFFSET are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM users LIMIT ALL
--> Append of all shards (read)

SELECT * FROM users LIMIT $1
--> Merge of all shards (read)
-->   Limit
-->   Text: SELECT * FROM users LIMIT ($1)

SELECT * FROM users FOR UPDATE
--> Append of all shards (locking read: primary)

SELECT * FROM users WHERE id = 5 FOR UPDATE
--> PassThrough to the shard of users = integer[0] (locking read: primary)
-->   Shards: s0

SELECT * FROM users WHERE id IN (1, 2, 5) FOR SHARE
--> Append of the shards of users in (integer[0], integer[1], integer[2]) (locking read: primary)
-->   Shards: s0, s1

SELECT * FROM users WHERE id IN (1, 2) FOR NO KEY UPDATE SKIP LOCKED
--> Append of the shards of users in (integer[0], integer[1]) (locking read: primary)
-->   Shards: s1

SELECT my_sum(age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT my_sum(age) FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT array_agg(id ORDER BY id) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT string_agg(name, ',') FILTER (WHERE age > 3) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (name, age) from all shards

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT mode() WITHIN GROUP (ORDER BY age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT grouping(name) FROM users GROUP BY CUBE (name)
--> Workspace (read)
-->   Reason: GROUP BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (name) from all shards

SELECT no_such_function(id) FROM users
--> Refuse 0A000: function "no_such_function" is not supported across shards: it is not known to the router
--> DETAIL: A function in it may change something.

SELECT no_such_function(id) FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0
-->   May use a sequence
-->   Unknown: no_such_function

-- an aggregate of an outer column belongs to the outer query
SELECT (SELECT count(u.id)) FROM users u
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT (SELECT max(u.age) FROM countries) FROM users u
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Fetch countries (code) from any shard, or read in place

SELECT (SELECT count(*) FROM countries) FROM users u
--> Append of all shards (read)

-- in ORDER BY only
SELECT 1 FROM users ORDER BY count(*)
--> Merge of all shards (read)
-->   One row of all
-->   Text: SELECT 1 FROM users ORDER BY count(*)

-- what may be appended
SELECT upper(name), age + 1, CASE WHEN age > 3 THEN 'old' END FROM users WHERE name LIKE 'a%'
--> Append of all shards (read)

SELECT name || 'x', created::date, extract(year FROM created) FROM users
--> Append of all shards (read)

SELECT generate_series(1, 3), id FROM users
--> Append of all shards (read)

SELECT u.*, u FROM users u
--> Append of all shards (read)

SELECT (u).name FROM users u
--> Append of all shards (read)

SELECT pure(age) FROM users
--> Append of all shards (read)

SELECT id, to_char(created, 'YYYY') FROM users
--> Append of all shards (read)

-- what depends on the server or the moment
SELECT now(), id FROM users
--> Workspace (read)
-->   Reason: function "now" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users WHERE created > now() - interval '1 day'
--> Workspace (read)
-->   Reason: function "now" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, created) from all shards

SELECT id FROM users WHERE created > current_timestamp
--> Workspace (read)
-->   Reason: function "current_timestamp" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, created) from all shards

SELECT id FROM users WHERE created > CURRENT_DATE
--> Workspace (read)
-->   Reason: function "current_date" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, created) from all shards

SELECT id FROM users WHERE id = 5 AND created > now() - interval '1 day'
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT random(), id FROM users
--> Workspace (read: primary)
-->   Reason: function "random" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users WHERE random() < 0.1
--> Workspace (read: primary)
-->   Reason: function "random" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT gen_random_uuid(), id FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read: primary)
-->   Shards: s0

SELECT pg_backend_pid(), id FROM users
--> Refuse 0A000: function "pg_backend_pid" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own. It reads the system catalogue, which differs from shard to shard.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT steady(), id FROM users
--> Workspace (read)
-->   Reason: function "steady" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT current_user, id FROM users
--> Append of all shards (read)

SELECT ctid, id FROM users
--> Refuse 0A000: system column "ctid" is not supported across shards
--> DETAIL: "ctid" means something on its own server only.

SELECT tableoid::regclass, id FROM users
--> Refuse 0A000: system column "tableoid" is not supported across shards
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT u.xmin FROM users u
--> Refuse 0A000: system column "xmin" is not supported across shards
--> DETAIL: "xmin" means something on its own server only.

SELECT ctid FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users TABLESAMPLE BERNOULLI (10)
--> Workspace (read)
-->   Reason: TABLESAMPLE is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM users TABLESAMPLE BERNOULLI (10) WHERE id = 5
--> PassThrough to the shard of users = integer[1] (read)
-->   Shards: s0

SELECT * FROM users u JOIN dice d ON d.code = u.name
--> Refuse 0A000: view "dice" is not supported across shards yet
--> DETAIL: It calls a function whose result could differ from shard to shard. A function in it may change something.

SELECT * FROM users u JOIN moments d ON d.code = u.name
--> Workspace (read)
-->   Reason: view "moments" is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch moments (code, name) from any shard, or read in place
-->     Only: code IN (fetched users.name, if few)

SELECT * FROM users u JOIN country_names d ON d.code = u.name
--> Append of all shards (read)

SELECT * FROM users WHERE id = 5 FOR NO KEY UPDATE OF users NOWAIT
--> PassThrough to the shard of users = integer[0] (locking read: primary)
-->   Shards: s0

SELECT * FROM users u, countries c WHERE u.id = 5 FOR KEY SHARE OF u, c SKIP LOCKED
--> PassThrough to the shard of users = integer[0] (locking read: primary)
-->   Shards: s0

SELECT * FROM users WHERE name ISNULL AND id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT current_schema, current_catalog, id FROM users
--> Append of all shards (read)
