-- rows that are appended or merged are locked where they are
SELECT id FROM users WHERE age > 3 FOR UPDATE OF users NOWAIT
--> Append of all shards (locking read: primary)

SELECT u.id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY u.id FOR SHARE OF o FOR KEY SHARE OF u SKIP LOCKED
--> Merge of all shards (locking read: primary)
-->   Merge by 1 bigint
-->   Text: SELECT u.id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY u.id FOR SHARE OF o FOR KEY SHARE OF u SKIP LOCKED

-- which rows are locked depends on a limit: they are found first
SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
--> Lock (locking read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Rows of jobs Update by "id", skip locked
-->   Candidates
-->     Merge of all shards (read)
-->       Merge by 1 bigint
-->       Limit
-->       Text: SELECT id , "jobs"."id"::pg_catalog.text AS "switchyard lock 1", "jobs"."id"::pg_catalog.text AS "switchyard lock 2", ROW("jobs"."id", "jobs"."state", "jobs"."note")::pg_catalog.text AS "switchyard lock 3" FROM jobs ORDER BY id LIMIT (1)

SELECT id FROM jobs ORDER BY id FOR NO KEY UPDATE LIMIT $1 OFFSET 3
--> Lock (locking read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Rows of jobs NoKeyUpdate by "id"
-->   Candidates
-->     Merge of all shards (read)
-->       Merge by 1 bigint
-->       Limit
-->       Text: SELECT id , "jobs"."id"::pg_catalog.text AS "switchyard lock 1", "jobs"."id"::pg_catalog.text AS "switchyard lock 2", ROW("jobs"."id", "jobs"."state", "jobs"."note")::pg_catalog.text AS "switchyard lock 3" FROM jobs ORDER BY id LIMIT (1)

SELECT id, note FROM jobs j ORDER BY id FETCH FIRST ROW ONLY FOR SHARE
--> Lock (locking read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Rows of jobs Share by "id"
-->   Candidates
-->     Merge of all shards (read)
-->       Merge by 1 bigint
-->       Limit
-->       Text: SELECT id, note , "j"."id"::pg_catalog.text AS "switchyard lock 1", "j"."id"::pg_catalog.text AS "switchyard lock 2", ROW("j"."id", "j"."state", "j"."note")::pg_catalog.text AS "switchyard lock 3" FROM jobs j ORDER BY id LIMIT (1)

EXPLAIN SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE
--> Lock (locking read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Rows of jobs Update by "id"
-->   Candidates
-->     Merge of all shards (read)
-->       Merge by 1 bigint
-->       Limit
-->       Text: SELECT id , "jobs"."id"::pg_catalog.text AS "switchyard lock 1", "jobs"."id"::pg_catalog.text AS "switchyard lock 2", ROW("jobs"."id", "jobs"."state", "jobs"."note")::pg_catalog.text AS "switchyard lock 3" FROM jobs ORDER BY id LIMIT (1)

-- one shard has all the rows, as the values have it
SELECT id FROM jobs WHERE id IN ($1, $2) ORDER BY id LIMIT 1 FOR UPDATE
--> PassThrough to the shards of jobs in ($1, $2) (locking read: primary)

-- an order, or a join, that the shards do not have
SELECT id FROM jobs ORDER BY lower(note) FOR UPDATE
--> Lock (locking read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Rows of jobs Update by "id"
-->   Candidates
-->     Workspace (read)
-->       Reason: ORDER BY is not supported across shards yet
-->       Bind join, if few: jobs
-->       Fetch jobs (id, state, note) from all shards
-->       Rows made by all shards
-->         Text: SELECT id , "jobs"."id"::pg_catalog.text AS "switchyard lock 1", "jobs"."id"::pg_catalog.text AS "switchyard lock 2", ROW("jobs"."id", "jobs"."state", "jobs"."note")::pg_catalog.text AS "switchyard lock 3", (lower(note)) AS "switchyard 1" FROM jobs ORDER BY lower(note) LIMIT (1)
-->         Finished by: SELECT "switchyard 1", "switchyard 2", "switchyard 3", "switchyard 4" FROM (SELECT "switchyard 1", "switchyard 2", "switchyard 3", "switchyard 4", "switchyard 5" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 5" NULLS LAST LIMIT 1

SELECT j.id, t.site FROM jobs j JOIN steps s ON s.job_id = j.id JOIN tools t ON t.name = s.tool FOR UPDATE OF t, s
--> Lock (locking read: primary)
-->   Reason: joining "jobs" and "tools" across shards is not supported yet
-->   Rows of steps Update by "job_id", "step"
-->   Rows of tools Update by "name"
-->   Candidates
-->     Workspace (read)
-->       Reason: LIMIT and OFFSET are not supported across shards yet
-->       Bind join, if few: tools
-->       Bind join, if few: jobs by id, steps by tool
-->       Bind join, if few: jobs, steps, tools
-->       Fetch jobs (id) from all shards
-->         Only: id IN (SELECT job_id FROM steps WHERE tool IN (fetched tools.name, if few))
-->       Fetch steps (job_id, step, tool) from all shards
-->         Only: tool IN (fetched tools.name, if few)
-->       Fetch tools (name, site) from all shards
-->         Only: name IN (fetched steps.tool, if few)

SELECT j.id FROM jobs j JOIN sites s ON s.site = j.note FOR UPDATE OF s NOWAIT FOR SHARE OF s, j
--> Lock (locking read: primary)
-->   Reason: combining a sharded table with something on the first shard only is not supported yet
-->   Rows of jobs Share by "id"
-->   Rows of sites Update by "site", no wait
-->   Candidates
-->     Workspace (read)
-->       Reason: LIMIT and OFFSET are not supported across shards yet
-->       Bind join, if few: sites
-->       Bind join, if few: jobs
-->       Fetch jobs (id, state, note) from all shards
-->         Only: note IN (fetched sites.site, if few)
-->       Fetch sites (site) from shard s0, or read in place
-->         Only: site IN (fetched jobs.note, if few)

-- copies of one row are on every shard
SELECT u.id FROM users u JOIN countries c ON c.code = u.name FOR UPDATE
--> Refuse 0A000: row locks of a reference table together with a sharded one are not supported across shards
--> DETAIL: Each shard has a copy of such a row, and only one of them would be locked. It locks rows of "users", which has no primary key to find them by.
--> HINT: Name the sharded tables: FOR UPDATE OF ….

SELECT u.id FROM users u JOIN countries c ON c.code = u.name FOR UPDATE OF u
--> Append of all shards (locking read: primary)

SELECT u.id FROM users u JOIN countries c ON c.code = u.name FOR UPDATE OF u, c
--> Refuse 0A000: row locks of a reference table together with a sharded one are not supported across shards
--> DETAIL: Each shard has a copy of such a row, and only one of them would be locked. It locks rows of "users", which has no primary key to find them by.
--> HINT: Name the sharded tables: FOR UPDATE OF ….

SELECT u.id FROM jobs u JOIN countries c ON c.code = u.note ORDER BY u.id LIMIT 1 FOR UPDATE OF c
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It locks rows of the reference table "countries", of which each shard has a copy.
--> HINT: Restrict the shard key so that one shard has all the rows.

-- no primary key to find them by
SELECT order_id FROM order_items ORDER BY order_id LIMIT 1 FOR UPDATE
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It locks rows of "order_items", which has no primary key to find them by.
--> HINT: Restrict the shard key so that one shard has all the rows.

-- in a subquery
SELECT * FROM (SELECT id FROM users FOR UPDATE) u
--> Refuse 0A000: row locks in a subquery are not supported across shards
--> DETAIL: It locks rows in a subquery.

WITH u AS (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE) SELECT * FROM u
--> Refuse 0A000: ordered subqueries are not supported across shards yet
--> DETAIL: It locks rows in a subquery.
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT * FROM (SELECT id FROM users) u ORDER BY id LIMIT 1 FOR UPDATE
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It locks rows of a subquery or a function.
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT id FROM jobs ORDER BY id LIMIT (SELECT 1) FOR UPDATE
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It locks rows up to a limit that is not a plain number.
--> HINT: Restrict the shard key so that one shard has all the rows.

SELECT id FROM jobs ORDER BY id FETCH FIRST 1 ROW WITH TIES FOR UPDATE
--> Refuse 0A000: ORDER BY is not supported across shards yet
--> DETAIL: It locks rows WITH TIES.
--> HINT: Restrict the shard key so that one shard has all the rows.

COPY (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE) TO STDOUT
--> Refuse 0A000: row locks on several shards are not supported in this statement
--> HINT: Lock the rows by themselves.

DECLARE c CURSOR FOR SELECT id FROM jobs WHERE id IN ($1, $2) LIMIT 1 FOR UPDATE
--> PassThrough to the shards of jobs in ($1, $2) (locking read: primary)

-- a cursor of one shard or of several, as the values have it
DECLARE c CURSOR FOR SELECT id FROM jobs WHERE id IN (1, 2) ORDER BY lower(note) LIMIT 1 FOR UPDATE
--> PassThrough to the shards of jobs in (integer[0], integer[1]) (locking read: primary)
-->   Shards: s1
