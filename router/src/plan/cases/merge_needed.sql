-- one shard may do anything
SELECT name, count(*) FROM users WHERE id = 5 GROUP BY name HAVING count(*) > 1 ORDER BY 2 LIMIT 3
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT sum(age) + 1 FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT coalesce(sum(age), 0) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT count(*) OVER () FROM users
--> Refuse 0A000: window functions are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT id, rank() OVER (PARTITION BY name ORDER BY age) FROM users
--> Refuse 0A000: window functions are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT id, rank() OVER w FROM users WINDOW w AS (ORDER BY age)
--> Refuse 0A000: window functions are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT name FROM users GROUP BY name
--> Refuse 0A000: GROUP BY is not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT id FROM users GROUP BY id
--> Refuse 0A000: GROUP BY is not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT 1 FROM users HAVING count(*) > 1
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT 1 FROM users HAVING true
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT DISTINCT name FROM users
--> Refuse 0A000: DISTINCT is not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT DISTINCT ON (name) * FROM users
--> Refuse 0A000: DISTINCT is not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users OFFSET 5
--> Refuse 0A000: LIMIT and OFFSET are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users FETCH FIRST 5 ROWS ONLY
--> Refuse 0A000: LIMIT and OFFSET are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users FETCH FIRST 5 ROWS WITH TIES
--> Refuse 0A000: LIMIT and OFFSET are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users LIMIT ALL
--> Append of all shards (read)

SELECT * FROM users LIMIT $1
--> Refuse 0A000: LIMIT and OFFSET are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users FOR UPDATE
--> Refuse 0A000: row locks are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM users WHERE id = 5 FOR UPDATE
--> PassThrough to the shard of users = integer[0] (locking read: primary)
-->   Shards: s0

SELECT * FROM users WHERE id IN (1, 2, 5) FOR SHARE
--> PassThrough to the shards of users in (integer[0], integer[1], integer[2]) (locking read: primary)
-->   Refuse row locks are not supported across shards yet

SELECT * FROM users WHERE id IN (1, 2) FOR NO KEY UPDATE SKIP LOCKED
--> PassThrough to the shards of users in (integer[0], integer[1]) (locking read: primary)
-->   Shards: s1

SELECT my_sum(age) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT my_sum(age) FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT array_agg(id ORDER BY id) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT string_agg(name, ',') FILTER (WHERE age > 3) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT mode() WITHIN GROUP (ORDER BY age) FROM users
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT grouping(name) FROM users GROUP BY CUBE (name)
--> Refuse 0A000: GROUP BY is not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT no_such_function(id) FROM users
--> Refuse 0A000: function "no_such_function" is not supported across shards: it is not known to the router

SELECT no_such_function(id) FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0
-->   May use a sequence
-->   Unknown: no_such_function

-- an aggregate of an outer column belongs to the outer query
SELECT (SELECT count(u.id)) FROM users u
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT (SELECT max(u.age) FROM countries) FROM users u
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT (SELECT count(*) FROM countries) FROM users u
--> Append of all shards (read)

-- in ORDER BY only
SELECT 1 FROM users ORDER BY count(*)
--> Refuse 0A000: aggregates are not supported across shards yet
--> HINT: Restrict the shard key so that one shard has all the rows.

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
--> Refuse 0A000: function "now" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT id FROM users WHERE created > now() - interval '1 day'
--> Refuse 0A000: function "now" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT id FROM users WHERE created > current_timestamp
--> Refuse 0A000: function "current_timestamp" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT id FROM users WHERE created > CURRENT_DATE
--> Refuse 0A000: function "current_date" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT id FROM users WHERE id = 5 AND created > now() - interval '1 day'
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT random(), id FROM users
--> Refuse 0A000: function "random" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT id FROM users WHERE random() < 0.1
--> Refuse 0A000: function "random" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT gen_random_uuid(), id FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read: primary)
-->   Shards: s0

SELECT pg_backend_pid(), id FROM users
--> Refuse 0A000: function "pg_backend_pid" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT steady(), id FROM users
--> Refuse 0A000: function "steady" is not supported across shards yet
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Compute the value first and pass it as a parameter, or restrict the shard key so that one shard has all the rows.

SELECT current_user, id FROM users
--> Append of all shards (read)

SELECT ctid, id FROM users
--> Refuse 0A000: system column "ctid" is not supported across shards

SELECT tableoid::regclass, id FROM users
--> Refuse 0A000: system column "tableoid" is not supported across shards

SELECT u.xmin FROM users u
--> Refuse 0A000: system column "xmin" is not supported across shards

SELECT ctid FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users TABLESAMPLE BERNOULLI (10)
--> Refuse 0A000: TABLESAMPLE is not supported across shards yet

SELECT * FROM users TABLESAMPLE BERNOULLI (10) WHERE id = 5
--> PassThrough to the shard of users = integer[1] (read)
-->   Shards: s0

SELECT * FROM users u JOIN dice d ON d.code = u.name
--> Refuse 0A000: view "dice" is not supported across shards yet
--> DETAIL: It calls a function whose result could differ from shard to shard.

SELECT * FROM users u JOIN moments d ON d.code = u.name
--> Refuse 0A000: view "moments" is not supported across shards yet
--> DETAIL: It calls a function whose result could differ from shard to shard.

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
