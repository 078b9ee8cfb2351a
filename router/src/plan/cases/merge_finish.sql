-- aggregates in expressions, HAVING without the shard key
SELECT country, 100.0 * sum(total) / count(*) AS share, avg(total) FILTER (WHERE status = 'new') FROM orders GROUP BY country HAVING count(*) > 1 ORDER BY share DESC, country LIMIT 10
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (total, status, country) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (country) AS "switchyard 1", (sum(total)) AS "switchyard 2", (count(*)) AS "switchyard 3", pg_catalog.sum(total) FILTER (WHERE status = 'new') AS "switchyard 4", pg_catalog.count(total) FILTER (WHERE status = 'new') AS "switchyard 5" FROM orders GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" , 100.0 * "switchyard 2" / "switchyard 3" ,  "switchyard 4"  FROM (SELECT "switchyard 1", pg_catalog.sum("switchyard 2") AS "switchyard 2", coalesce(pg_catalog.sum("switchyard 3"), 0)::pg_catalog.int8 AS "switchyard 3", CASE WHEN pg_catalog.sum("switchyard 5") OPERATOR(pg_catalog.>) 0 THEN pg_catalog.sum("switchyard 4") OPERATOR(pg_catalog./) pg_catalog.sum("switchyard 5") END AS "switchyard 4" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard" WHERE ( "switchyard 3" > 1)  ORDER BY 2 DESC NULLS FIRST, 1 NULLS LAST LIMIT 10

-- an expression is grouped by
SELECT extract(year from created) AS y, count(*) FROM users GROUP BY y ORDER BY y
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (created) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (extract(year from created)) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"  ORDER BY 1 NULLS LAST

SELECT date_trunc('month', created), max(age) - min(age) FROM users WHERE age > 3 GROUP BY date_trunc('month', created) ORDER BY 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age, created) from all shards
-->     Only: age > 3
-->   Rows made by all shards
-->     Text:  SELECT (date_trunc('month', created)) AS "switchyard 1", (max(age)) AS "switchyard 2", (min(age)) AS "switchyard 3" FROM users WHERE age > 3 GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2" - "switchyard 3"  FROM (SELECT "switchyard 1", pg_catalog.max("switchyard 2") AS "switchyard 2", pg_catalog.min("switchyard 3") AS "switchyard 3" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"  ORDER BY 1 NULLS LAST
-->   Guards: [0, 2, 3]

-- the literals must be equal
SELECT date_trunc('month', created), max(age) - min(age) FROM users WHERE age > 3 GROUP BY date_trunc('day', created) ORDER BY 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age, created) from all shards
-->     Only: age > 3
-->   Guards: [0, 2, 3]

SELECT count(*) > 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (count(*)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1" > 1 FROM (SELECT coalesce(pg_catalog.sum("switchyard 1"), 0)::pg_catalog.int8 AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT round(avg(age), $1), coalesce(sum(age), 0) FROM users WHERE age < $2
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->     Only: age < $2
-->   Rows made by all shards
-->     Text:  SELECT pg_catalog.sum(age) AS "switchyard 1", pg_catalog.count(age) AS "switchyard 2", (sum(age)) AS "switchyard 3" FROM users WHERE age < $2 HAVING true
-->     Finished by: SELECT round( "switchyard 1" , $1), coalesce( "switchyard 3" , 0) FROM (SELECT CASE WHEN pg_catalog.sum("switchyard 2") OPERATOR(pg_catalog.>) 0 THEN pg_catalog.sum("switchyard 1") OPERATOR(pg_catalog./) pg_catalog.sum("switchyard 2") END AS "switchyard 1", pg_catalog.sum("switchyard 3") AS "switchyard 3" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

-- windows over groups
SELECT country, rank() OVER (ORDER BY sum(total) DESC), sum(sum(total)) OVER w FROM orders GROUP BY country WINDOW w AS (PARTITION BY country)
--> Workspace (read)
-->   Reason: window functions are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (total, country) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (country) AS "switchyard 1", (sum(total)) AS "switchyard 2" FROM orders GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" , rank() OVER (ORDER BY "switchyard 2" DESC), sum( "switchyard 2" ) OVER w FROM (SELECT "switchyard 1", pg_catalog.sum("switchyard 2") AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard" WINDOW w AS (PARTITION BY "switchyard 1" )

-- no aggregate
SELECT DISTINCT lower(name), age + 1 FROM users ORDER BY age + 1
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (name, age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (lower(name)) AS "switchyard 1", (age + 1) AS "switchyard 2" FROM users GROUP BY 1, 2
-->     Finished by: SELECT DISTINCT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1, 2) AS "switchyard"  ORDER BY  "switchyard 2"  NULLS LAST
-->   Guards: [0, 1]

-- a name with and without its table's
SELECT u.age + 1, count(*) FROM users u GROUP BY age ORDER BY u.age + 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (age) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM users u GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" + 1,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"  ORDER BY  "switchyard 1" + 1 NULLS LAST

-- order only PostgreSQL knows
SELECT id, name FROM users ORDER BY lower(name), id LIMIT 5 OFFSET 2
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, name) from all shards
-->   Rows made by all shards
-->     Text: SELECT id, name, (lower(name)) AS "switchyard 1" FROM users ORDER BY lower(name), id LIMIT (least((5)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((2)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))
-->     Finished by: SELECT "switchyard 1", "switchyard 2" FROM (SELECT "switchyard 1", "switchyard 2", "switchyard 3" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 3" NULLS LAST, "switchyard 1" NULLS LAST LIMIT 5 OFFSET 2

SELECT user_id, sum(total * 2) AS spent FROM orders GROUP BY user_id ORDER BY spent DESC, user_id LIMIT $1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (user_id, total) from all shards
-->   Rows made by all shards
-->     Text: SELECT user_id, sum(total * 2) AS spent FROM orders GROUP BY user_id ORDER BY spent DESC, user_id LIMIT ($1)
-->     Finished by: SELECT "switchyard 1", "switchyard 2" FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 2" DESC NULLS FIRST, "switchyard 1" NULLS LAST LIMIT $1

-- what depends on the order of rows, or on all of them, is not in parts
SELECT array_agg(age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT count(DISTINCT age) + 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT country, count(*) * 2, (SELECT max(rate) FROM rates) FROM orders GROUP BY country
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (country) from all shards
-->   Fetch rates (rate) from any shard, or read in place

SELECT name, count(*) * 2 FROM users GROUP BY age
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (name, age) from all shards

SELECT my_sum(age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT count(*) + id FROM users GROUP BY age
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

-- operators bind as they do
SELECT 2 * age + 1, count(*) FROM users GROUP BY age + 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Guards: [1, 2]

WITH young AS (SELECT * FROM users WHERE age < 30) SELECT count(*) + 1 FROM young
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->     Only: age < 30
-->   Rows made by all shards
-->     Text: WITH young AS (SELECT * FROM users WHERE age < 30) SELECT (count(*)) AS "switchyard 1" FROM young HAVING true
-->     Finished by: SELECT  "switchyard 1" + 1 FROM (SELECT coalesce(pg_catalog.sum("switchyard 1"), 0)::pg_catalog.int8 AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

EXPLAIN SELECT sum(age) + 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(age)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: EXPLAIN SELECT  "switchyard 1" + 1 FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

DECLARE c CURSOR WITH HOLD FOR SELECT sum(age) + 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
