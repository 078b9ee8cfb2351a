-- rows in order
SELECT id, age FROM users ORDER BY id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id, age FROM users ORDER BY id

SELECT id, age FROM users ORDER BY age DESC, id NULLS FIRST
--> Merge of all shards (read)
-->   Merge by 2 integer descending, 1 bigint nulls first
-->   Text: SELECT id, age FROM users ORDER BY age DESC, id NULLS FIRST

SELECT id FROM users ORDER BY age DESC NULLS LAST, users.id
--> Merge of all shards (read)
-->   Merge by 2 integer descending nulls last, 1 bigint
-->   Columns shown: 1
-->   Text: SELECT id, (age) AS "switchyard 1" FROM users ORDER BY age DESC NULLS LAST, users.id

-- a time is compared by its binary form
SELECT id, created FROM users ORDER BY created DESC LIMIT 20
--> Merge of all shards (read)
-->   Merge by 3 timestamp sent descending
-->   Limit
-->   Columns shown: 2
-->   Text: SELECT id, created, pg_catalog.timestamptz_send(created) AS "switchyard 1" FROM users ORDER BY created DESC LIMIT (20)

SELECT * FROM users ORDER BY created
--> Merge of all shards (read)
-->   Merge by 6 timestamp sent
-->   Columns shown: 5
-->   Text: SELECT *, pg_catalog.timestamptz_send(created) AS "switchyard 1" FROM users ORDER BY created

SELECT u.*, o.id AS order_id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY u.created, o.id
--> Merge of all shards (read)
-->   Merge by 7 timestamp sent, 6 bigint
-->   Columns shown: 6
-->   Text: SELECT u.*, o.id AS order_id, pg_catalog.timestamptz_send(u.created) AS "switchyard 1" FROM users u JOIN orders o ON o.user_id = u.id ORDER BY u.created, o.id

-- by number: the plan depends on it
SELECT id, age AS years FROM users ORDER BY 2 DESC, 1
--> Merge of all shards (read)
-->   Merge by 2 integer descending, 1 bigint
-->   Text: SELECT id, age AS years FROM users ORDER BY 2 DESC, 1
-->   Guards: [0, 1]

-- a name of the result comes before one of the input
SELECT id AS age FROM users ORDER BY age
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id AS age FROM users ORDER BY age

SELECT -id AS age FROM users ORDER BY age
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards
-->   Rows made by all shards
-->     Text: SELECT -id AS age FROM users
-->     Finished by: SELECT "switchyard 1" FROM (SELECT "switchyard 1" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 1" NULLS LAST

SELECT id AS a, age AS a FROM users ORDER BY a
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

-- what PostgreSQL makes up may be the name
SELECT CASE WHEN age > 1 THEN 1 END, id FROM users ORDER BY id
--> Merge of all shards (read)
-->   Merge by 2 bigint
-->   Text: SELECT CASE WHEN age > 1 THEN 1 END, id FROM users ORDER BY id

SELECT CASE WHEN age > 1 THEN 1 END, id FROM users ORDER BY "case"
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

-- of text only what is compared by bytes
SELECT id FROM users ORDER BY email
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email) from all shards
-->   Rows made by all shards
-->     Text: SELECT id, (email) AS "switchyard 1" FROM users
-->     Finished by: SELECT "switchyard 1" FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 2" NULLS LAST

SELECT id, word FROM words ORDER BY word DESC
--> Merge of all shards (read)
-->   Merge by 2 text descending
-->   Text: SELECT id, word FROM words ORDER BY word DESC

SELECT id FROM users ORDER BY email COLLATE "C", id
--> Merge of all shards (read)
-->   Merge by 2 text, 1 bigint
-->   Columns shown: 1
-->   Text: SELECT id, (email COLLATE "C") AS "switchyard 1" FROM users ORDER BY email COLLATE "C", id

SELECT id FROM nocased ORDER BY label
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: nocased
-->   Fetch nocased (id, label) from all shards
-->   Rows made by all shards
-->     Text: SELECT id, (label) AS "switchyard 1" FROM nocased
-->     Finished by: SELECT "switchyard 1" FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 2" NULLS LAST

SELECT id FROM users ORDER BY lower(email)
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email) from all shards
-->   Rows made by all shards
-->     Text: SELECT id, (lower(email)) AS "switchyard 1" FROM users
-->     Finished by: SELECT "switchyard 1" FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 2" NULLS LAST

-- casts whose type is certain
SELECT id FROM users ORDER BY email::int, created::date
--> Merge of all shards (read)
-->   Merge by 2 integer, 4 date sent
-->   Columns shown: 1
-->   Text: SELECT id, (email::int) AS "switchyard 1", (created::date) AS "switchyard 2", pg_catalog.date_send(created::date) AS "switchyard 3" FROM users ORDER BY email::int, created::date

SELECT id::int AS n FROM users ORDER BY n
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   Text: SELECT id::int AS n FROM users ORDER BY n

-- limits
SELECT id FROM users LIMIT 5
--> Merge of all shards (read)
-->   Limit
-->   Text: SELECT id FROM users LIMIT (5)

SELECT id FROM users OFFSET 5 ROWS
--> Merge of all shards (read)
-->   Offset
-->   Text: SELECT id FROM users

SELECT id FROM users ORDER BY id LIMIT 5 OFFSET 10
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Offset and limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (least((5)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((10)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))

SELECT id FROM users ORDER BY id OFFSET 10 LIMIT 5
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Offset and limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (least((5)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((10)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))

SELECT id FROM users ORDER BY id LIMIT $1
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT ($1)

SELECT id FROM users WHERE id > $3 ORDER BY id LIMIT $1 OFFSET $2
--> Merge of the shards of users > $3 (read)
-->   Merge by 1 bigint
-->   Offset and limit
-->   Text: SELECT id FROM users WHERE id > $3 ORDER BY id LIMIT (least(($1)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce(($2)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))

SELECT id FROM users ORDER BY id LIMIT $1::int
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT ($1::int)

SELECT id FROM users ORDER BY id LIMIT '5'
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT ('5')

SELECT id FROM users ORDER BY id LIMIT NULL OFFSET 3
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Offset and limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (least((NULL)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((3)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))

SELECT id FROM users ORDER BY id LIMIT ALL
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users ORDER BY id

SELECT id FROM users ORDER BY id LIMIT 2.5
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY id LIMIT 1 + 1
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY id LIMIT 0
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (0)

SELECT id FROM users ORDER BY id LIMIT -1
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (-1)

SELECT id FROM users ORDER BY id FETCH FIRST ROW ONLY
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (1)

SELECT id FROM users ORDER BY id OFFSET 2 FETCH NEXT 3 ROWS ONLY
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Offset and limit
-->   Text: SELECT id FROM users ORDER BY id LIMIT (least((3)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((2)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807))

SELECT id FROM users ORDER BY age OFFSET 2 ROWS FETCH FIRST 3 ROWS WITH TIES
--> Merge of all shards (read)
-->   Merge by 2 integer
-->   With ties in the first 1 keys
-->   Offset and limit
-->   Columns shown: 1
-->   Text: SELECT id, (age) AS "switchyard 1" FROM users ORDER BY age FETCH FIRST (least((3)::pg_catalog.int8::pg_catalog.numeric OPERATOR(pg_catalog.+) coalesce((2)::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807)) ROWS WITH TIES

SELECT id FROM users FETCH FIRST 3 ROWS WITH TIES
--> Workspace (read)
-->   Reason: LIMIT and OFFSET are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

-- fewer shards
SELECT id FROM users WHERE id IN (1, 2, 5) ORDER BY id
--> Merge of the shards of users in (integer[0], integer[1], integer[2]) (read)
-->   Shards: s0, s1
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users WHERE id IN (1, 2, 5) ORDER BY id

SELECT id FROM users WHERE id IN (1, 2) ORDER BY id
--> Merge of the shards of users in (integer[0], integer[1]) (read)
-->   Shards: s1
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users WHERE id IN (1, 2) ORDER BY id

SELECT id FROM users WHERE id = ANY ($1) ORDER BY id LIMIT 3
--> Merge of the shards of users in elements of $1 (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: SELECT id FROM users WHERE id = ANY ($1) ORDER BY id LIMIT (3)

SELECT payload FROM events WHERE day > '2026-02-01' ORDER BY payload COLLATE "C"
--> Merge of the shards of events > string[0] (read)
-->   Shards: s1
-->   Merge by 2 text
-->   Columns shown: 1
-->   Text: SELECT payload, (payload COLLATE "C") AS "switchyard 1" FROM events WHERE day > '2026-02-01' ORDER BY payload COLLATE "C"

-- colocated joins, subqueries and CTEs that are complete on each shard
SELECT u.id, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.total > 5 ORDER BY o.total DESC LIMIT 3
--> Merge of all shards (read)
-->   Merge by 2 numeric descending
-->   Limit
-->   Text: SELECT u.id, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.total > 5 ORDER BY o.total DESC LIMIT (3)

SELECT user_id, o.id FROM users u JOIN orders o USING (id) ORDER BY o.id
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT id FROM (SELECT id, age FROM users WHERE age > 3) u ORDER BY age
--> Merge of all shards (read)
-->   Merge by 2 integer
-->   Columns shown: 1
-->   Text: SELECT id, (age) AS "switchyard 1" FROM (SELECT id, age FROM users WHERE age > 3) u ORDER BY age

WITH o AS (SELECT user_id, id FROM orders WHERE total > 3) SELECT id FROM o ORDER BY id LIMIT 3
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Limit
-->   Text: WITH o AS (SELECT user_id, id FROM orders WHERE total > 3) SELECT id FROM o ORDER BY id LIMIT (3)

SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id) ORDER BY id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id) ORDER BY id

SELECT u.id, c.name FROM users u LEFT JOIN countries c ON c.code = u.name ORDER BY u.id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT u.id, c.name FROM users u LEFT JOIN countries c ON c.code = u.name ORDER BY u.id

-- aggregates of all rows
SELECT count(*) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM users

SELECT count(age), sum(age), avg(age), min(age), max(age) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->     2: sum of bigint
-->     3: average of sum 6 bigint and count 7
-->     4: first by 4 integer
-->     5: first by 5 integer descending nulls last
-->   Columns shown: 5
-->   Text: SELECT count(age), sum(age), avg(age), min(age), max(age), pg_catalog.sum(age) AS "switchyard 1", pg_catalog.count(age) AS "switchyard 2" FROM users

SELECT sum(id), avg(id) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of numeric
-->     2: average of sum 3 numeric and count 4
-->   Columns shown: 2
-->   Text: SELECT sum(id), avg(id), pg_catalog.sum(id) AS "switchyard 1", pg_catalog.count(id) AS "switchyard 2" FROM users

SELECT sum(total), avg(total) AS mean, min(total), max(total) FROM orders WHERE status = 'new'
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of numeric
-->     2: average of sum 5 numeric and count 6
-->     3: first by 3 numeric
-->     4: first by 4 numeric descending nulls last
-->   Columns shown: 4
-->   Text: SELECT sum(total), avg(total) AS mean, min(total), max(total), pg_catalog.sum(total) AS "switchyard 1", pg_catalog.count(total) AS "switchyard 2" FROM orders WHERE status = 'new'

SELECT min(created), max(created), max(day) FROM users, events
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: events
-->   Bind join, if few: users
-->   Bind join, if few: users, events
-->   Fetch users (created) from all shards
-->   Fetch events (day) from all shards

SELECT min(created), max(created) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     3: first by 3 timestamp sent
-->     1: first by 3 timestamp sent
-->     4: first by 4 timestamp sent descending nulls last
-->     2: first by 4 timestamp sent descending nulls last
-->   Columns shown: 2
-->   Text: SELECT min(created), max(created), pg_catalog.timestamptz_send(min(created)) AS "switchyard 1", pg_catalog.timestamptz_send(max(created)) AS "switchyard 2" FROM users

SELECT min(word), max(word) FROM words
--> Merge of all shards (read)
-->   One row of all
-->     1: first by 1 text
-->     2: first by 2 text descending nulls last
-->   Text: SELECT min(word), max(word) FROM words

SELECT min(email) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (email) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (min(email)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT pg_catalog.min("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT bool_and(ok), every(ok), bool_or(ok) FROM flags
--> Merge of all shards (read)
-->   One row of all
-->     1: and
-->     2: and
-->     3: or
-->   Text: SELECT bool_and(ok), every(ok), bool_or(ok) FROM flags

SELECT bit_and(age), bit_or(age), bit_xor(age) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: bitwise and of integer
-->     2: bitwise or of integer
-->     3: bitwise exclusive or of integer
-->   Text: SELECT bit_and(age), bit_or(age), bit_xor(age) FROM users

SELECT count(*) FILTER (WHERE age > 3), avg(age) FILTER (WHERE age > 4) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->     2: average of sum 3 bigint and count 4
-->   Columns shown: 2
-->   Text: SELECT count(*) FILTER (WHERE age > 3), avg(age) FILTER (WHERE age > 4), pg_catalog.sum(age) FILTER (WHERE age > 4) AS "switchyard 1", pg_catalog.count(age) FILTER (WHERE age > 4) AS "switchyard 2" FROM users

SELECT count(*) FROM users ORDER BY 1 LIMIT 1
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Limit
-->   Text: SELECT count(*) FROM users ORDER BY 1
-->   Guards: [0]

SELECT avg((age)) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: average of sum 2 bigint and count 3
-->   Columns shown: 1
-->   Text: SELECT avg((age)), pg_catalog.sum((age)) AS "switchyard 1", pg_catalog.count((age)) AS "switchyard 2" FROM users

SELECT (count(*)) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT (count(*)) FROM users

SELECT pg_catalog.avg(age) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: average of sum 2 bigint and count 3
-->   Columns shown: 1
-->   Text: SELECT pg_catalog.avg(age), pg_catalog.sum(age) AS "switchyard 1", pg_catalog.count(age) AS "switchyard 2" FROM users

-- that are not combined
SELECT count(*) + 1 FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (count(*)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1" + 1 FROM (SELECT coalesce(pg_catalog.sum("switchyard 1"), 0)::pg_catalog.int8 AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT count(DISTINCT age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT sum(v) FROM metrics
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: metrics
-->   Fetch metrics (v) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(v)) AS "switchyard 1" FROM metrics HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT array_agg(id) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT my_sum(age) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

SELECT sum(length(email)) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (email) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(length(email))) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT sum(age + 1) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(age + 1)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

SELECT sum(age::bigint) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of numeric
-->   Text: SELECT sum(age::bigint) FROM users

SELECT count(*) FROM users HAVING count(*) > 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (count(*)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT  "switchyard 1"  FROM (SELECT coalesce(pg_catalog.sum("switchyard 1"), 0)::pg_catalog.int8 AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard" WHERE ( "switchyard 1" > 1)

SELECT 1 FROM users HAVING true
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT coalesce(sum(age), 0) FROM users
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (sum(age)) AS "switchyard 1" FROM users HAVING true
-->     Finished by: SELECT coalesce( "switchyard 1" , 0) FROM (SELECT pg_catalog.sum("switchyard 1") AS "switchyard 1" FROM pg_temp."switchyard rows" HAVING true) AS "switchyard"

-- groups with the shard key are complete on their shards
SELECT id, count(*) FROM users GROUP BY id
--> Merge of all shards (read)
-->   Text: SELECT id, count(*) FROM users GROUP BY id

SELECT user_id, string_agg(status, ',') FROM orders GROUP BY user_id HAVING count(*) > 1 ORDER BY user_id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT user_id, string_agg(status, ',') FROM orders GROUP BY user_id HAVING count(*) > 1 ORDER BY user_id

SELECT user_id, count(*) AS n FROM orders GROUP BY 1 ORDER BY n DESC, user_id LIMIT 10
--> Merge of all shards (read)
-->   Merge by 2 bigint descending, 1 bigint
-->   Limit
-->   Text: SELECT user_id, count(*) AS n FROM orders GROUP BY 1 ORDER BY n DESC, user_id LIMIT (10)
-->   Guards: [0]

SELECT user_id FROM orders GROUP BY user_id, status ORDER BY count(*) DESC, sum(total)
--> Merge of all shards (read)
-->   Merge by 2 bigint descending, 3 numeric
-->   Columns shown: 1
-->   Text: SELECT user_id, (count(*)) AS "switchyard 1", (sum(total)) AS "switchyard 2" FROM orders GROUP BY user_id, status ORDER BY count(*) DESC, sum(total)

SELECT u.id, sum(o.total) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY o.user_id, u.id ORDER BY 2 DESC NULLS LAST
--> Merge of all shards (read)
-->   Merge by 2 numeric descending nulls last
-->   Text: SELECT u.id, sum(o.total) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY o.user_id, u.id ORDER BY 2 DESC NULLS LAST
-->   Guards: [0]

SELECT user_id AS who, count(*) FROM orders GROUP BY who
--> Merge of all shards (read)
-->   Text: SELECT user_id AS who, count(*) FROM orders GROUP BY who

-- NULL in place of the key is on every shard
SELECT o.user_id, count(*) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY o.user_id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Text: SELECT o.user_id, count(*) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY o.user_id ORDER BY 1 NULLS LAST

SELECT u.id, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY 2
--> Merge of all shards (read)
-->   Merge by 2 bigint
-->   Text: SELECT u.id, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY 2
-->   Guards: [0]

-- other groups are combined
SELECT age, count(*) FROM users GROUP BY age
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Text: SELECT age, count(*) FROM users GROUP BY age ORDER BY 1 NULLS LAST

SELECT age, count(*) FROM users GROUP BY age ORDER BY age DESC LIMIT 5
--> Merge of all shards (read)
-->   Merge by 1 integer descending
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Limit
-->   Text: SELECT age, count(*) FROM users GROUP BY age ORDER BY 1 DESC NULLS FIRST LIMIT (5)

SELECT age, count(*) FROM users GROUP BY age ORDER BY count(*) DESC, age LIMIT 5 OFFSET 1
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Sort by 2 bigint descending, 1 integer
-->   Offset and limit
-->   Text: SELECT age, count(*) FROM users GROUP BY age ORDER BY 1 NULLS LAST

SELECT count(*) FROM users GROUP BY age ORDER BY max(created)
--> Merge of all shards (read)
-->   Merge by 4 integer
-->   One row of those with equal keys
-->     1: sum of bigint
-->     3: first by 3 timestamp sent descending nulls last
-->     2: first by 3 timestamp sent descending nulls last
-->   Sort by 3 timestamp sent
-->   Columns shown: 1
-->   Text: SELECT count(*), (max(created)) AS "switchyard 1", pg_catalog.timestamptz_send(max(created)) AS "switchyard 2", (age) AS "switchyard 3" FROM users GROUP BY age ORDER BY 4 NULLS LAST

SELECT email, avg(age) FROM users GROUP BY email
--> Merge of all shards (read)
-->   Merge by 5 text
-->   One row of those with equal keys
-->     2: average of sum 3 bigint and count 4
-->   Columns shown: 2
-->   Text: SELECT email, avg(age), pg_catalog.sum(age) AS "switchyard 1", pg_catalog.count(age) AS "switchyard 2", (email) COLLATE pg_catalog."C" AS "switchyard 3" FROM users GROUP BY email ORDER BY 5 NULLS LAST

SELECT email, avg(age) FROM users GROUP BY 1 ORDER BY 2
--> Merge of all shards (read)
-->   Merge by 5 text
-->   One row of those with equal keys
-->     2: average of sum 3 bigint and count 4
-->   Sort by 2 numeric
-->   Columns shown: 2
-->   Text: SELECT email, avg(age), pg_catalog.sum(age) AS "switchyard 1", pg_catalog.count(age) AS "switchyard 2", (email) COLLATE pg_catalog."C" AS "switchyard 3" FROM users GROUP BY 1 ORDER BY 5 NULLS LAST
-->   Guards: [0, 1]

SELECT email, avg(age) FROM users GROUP BY email ORDER BY email
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (email, age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (email) AS "switchyard 1", pg_catalog.sum(age) AS "switchyard 2", pg_catalog.count(age) AS "switchyard 3" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", CASE WHEN pg_catalog.sum("switchyard 3") OPERATOR(pg_catalog.>) 0 THEN pg_catalog.sum("switchyard 2") OPERATOR(pg_catalog./) pg_catalog.sum("switchyard 3") END AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"  ORDER BY 1 NULLS LAST

SELECT status, country, sum(total), avg(total) FROM orders GROUP BY country, status ORDER BY status COLLATE "C", 3
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (total, status, country) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (country) AS "switchyard 1", (status) AS "switchyard 2", (sum(total)) AS "switchyard 3", pg_catalog.sum(total) AS "switchyard 4", pg_catalog.count(total) AS "switchyard 5" FROM orders GROUP BY 1, 2
-->     Finished by: SELECT  "switchyard 2" ,  "switchyard 1" ,  "switchyard 3" ,  "switchyard 4"  FROM (SELECT "switchyard 1", "switchyard 2", pg_catalog.sum("switchyard 3") AS "switchyard 3", CASE WHEN pg_catalog.sum("switchyard 5") OPERATOR(pg_catalog.>) 0 THEN pg_catalog.sum("switchyard 4") OPERATOR(pg_catalog./) pg_catalog.sum("switchyard 5") END AS "switchyard 4" FROM pg_temp."switchyard rows" GROUP BY 1, 2) AS "switchyard"  ORDER BY  "switchyard 2" COLLATE "C" NULLS LAST, 3 NULLS LAST
-->   Guards: [0]

SELECT created, count(*) FROM users GROUP BY created
--> Merge of all shards (read)
-->   Merge by 3 timestamp sent
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Columns shown: 2
-->   Text: SELECT created, count(*), pg_catalog.timestamptz_send(created) AS "switchyard 1" FROM users GROUP BY created ORDER BY 1 NULLS LAST

SELECT count(*) FROM users GROUP BY created ORDER BY created
--> Merge of all shards (read)
-->   Merge by 3 timestamp sent
-->   One row of those with equal keys
-->     1: sum of bigint
-->   Columns shown: 1
-->   Text: SELECT count(*), (created) AS "switchyard 1", pg_catalog.timestamptz_send(created) AS "switchyard 2" FROM users GROUP BY created ORDER BY 2 NULLS LAST

SELECT created::date AS day, count(*) FROM users GROUP BY day ORDER BY day
--> Merge of all shards (read)
-->   Merge by 3 date sent
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Columns shown: 2
-->   Text: SELECT created::date AS day, count(*), pg_catalog.date_send(created::date) AS "switchyard 1" FROM users GROUP BY day ORDER BY 1 NULLS LAST

SELECT age FROM users GROUP BY age
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   One row of those with equal keys
-->   Text: SELECT age FROM users GROUP BY age ORDER BY 1 NULLS LAST

SELECT age, 'x', age * 2 FROM users GROUP BY age
--> Workspace (read)
-->   Reason: GROUP BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (age) AS "switchyard 1" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" , 'x',  "switchyard 1" * 2 FROM (SELECT "switchyard 1" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

SELECT age, count(*) FROM users GROUP BY age HAVING count(*) > 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (age) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard" WHERE ( "switchyard 2" > 1)

SELECT age, count(*) FROM users GROUP BY age ORDER BY age FETCH FIRST 2 ROWS WITH TIES
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   One row of those with equal keys
-->     2: sum of bigint
-->   With ties in the first 1 keys
-->   Limit
-->   Text: SELECT age, count(*) FROM users GROUP BY age ORDER BY 1 NULLS LAST

SELECT lower(email), count(*) FROM users GROUP BY lower(email)
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (email) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (lower(email)) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

SELECT label, count(*) FROM nocased GROUP BY label
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: nocased
-->   Fetch nocased (label) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (label) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM nocased GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

SELECT v, count(*) FROM metrics GROUP BY v
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: metrics
-->   Fetch metrics (v) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (v) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM metrics GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" ,  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

SELECT count(*) FROM users GROUP BY ROLLUP (age)
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

-- DISTINCT
SELECT DISTINCT id, age FROM users ORDER BY age
--> Merge of all shards (read)
-->   Merge by 2 integer
-->   Text: SELECT DISTINCT id, age FROM users ORDER BY age

SELECT DISTINCT age FROM users
--> Merge of all shards (read)
-->   Merge by 1 integer
-->   One row of those with equal keys
-->   Text: SELECT DISTINCT age FROM users ORDER BY 1

SELECT DISTINCT age, created FROM users ORDER BY created DESC LIMIT 3
--> Merge of all shards (read)
-->   Merge by 3 timestamp sent descending, 1 integer
-->   One row of those with equal keys
-->   Limit
-->   Columns shown: 2
-->   Text: SELECT DISTINCT age, created, pg_catalog.timestamptz_send(created) AS "switchyard 1" FROM users ORDER BY created DESC, 1 LIMIT (3)

SELECT DISTINCT email FROM users
--> Merge of all shards (read)
-->   Merge by 2 text
-->   One row of those with equal keys
-->   Columns shown: 1
-->   Text: SELECT DISTINCT email, (email) COLLATE pg_catalog."C" AS "switchyard 1" FROM users ORDER BY 2

SELECT DISTINCT email FROM users ORDER BY email
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (email) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (email) AS "switchyard 1" FROM users GROUP BY 1
-->     Finished by: SELECT DISTINCT  "switchyard 1"  FROM (SELECT "switchyard 1" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"  ORDER BY 1 NULLS LAST

SELECT DISTINCT age FROM users ORDER BY id
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

SELECT DISTINCT email, age FROM users ORDER BY age FETCH FIRST 1 ROW WITH TIES
--> Merge of all shards (read)
-->   Merge by 2 integer, 3 text
-->   One row of those with equal keys
-->   With ties in the first 1 keys
-->   Limit
-->   Columns shown: 2
-->   Text: SELECT DISTINCT email, age, (email) COLLATE pg_catalog."C" AS "switchyard 1" FROM users ORDER BY age, 3

SELECT DISTINCT v FROM metrics
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: metrics
-->   Fetch metrics (v) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (v) AS "switchyard 1" FROM metrics GROUP BY 1
-->     Finished by: SELECT DISTINCT  "switchyard 1"  FROM (SELECT "switchyard 1" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

SELECT DISTINCT id, v FROM metrics ORDER BY v
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: metrics
-->   Fetch metrics (id, v) from all shards
-->   Rows made by all shards
-->     Text: SELECT DISTINCT id, v FROM metrics
-->     Finished by: SELECT "switchyard 1", "switchyard 2" FROM (SELECT "switchyard 1", "switchyard 2" FROM pg_temp."switchyard rows") AS "switchyard" ORDER BY "switchyard 2" NULLS LAST

SELECT DISTINCT * FROM words
--> Merge of all shards (read)
-->   Text: SELECT DISTINCT * FROM words

SELECT DISTINCT ON (user_id) user_id, total FROM orders ORDER BY user_id, total DESC
--> Merge of all shards (read)
-->   Merge by 1 bigint, 2 numeric descending
-->   Text: SELECT DISTINCT ON (user_id) user_id, total FROM orders ORDER BY user_id, total DESC

SELECT DISTINCT ON (status) status, total FROM orders ORDER BY status
--> Workspace (read)
-->   Reason: DISTINCT is not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (total, status) from all shards

SELECT DISTINCT count(*) FROM orders GROUP BY user_id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   One row of those with equal keys
-->   Text: SELECT DISTINCT count(*) FROM orders GROUP BY user_id ORDER BY 1

SELECT DISTINCT count(*) FROM orders GROUP BY status
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (status) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (status) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM orders GROUP BY 1
-->     Finished by: SELECT DISTINCT  "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"

-- words that begin clauses and here do not
SELECT age IS DISTINCT FROM id AS "from", users.age AS order FROM users ORDER BY id
--> Merge of all shards (read)
-->   Merge by 3 bigint
-->   Columns shown: 2
-->   Text: SELECT age IS DISTINCT FROM id AS "from", users.age AS order, (id) AS "switchyard 1" FROM users ORDER BY id

SELECT extract(year FROM created) AS limit, (SELECT 1 FROM countries LIMIT 1) FROM users ORDER BY id LIMIT 2
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, created) from all shards
-->   Fetch countries (code) from any shard, or read in place

SELECT ALL id FROM users WHERE email = ' ORDER BY ' ORDER /* by */ BY -- id
  id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT ALL id FROM users WHERE email = ' ORDER BY ' ORDER /* by */ BY -- id
-->   id

SELECT id FROM users ORDER BY id;
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users ORDER BY id

-- what nobody knows
SELECT id, rank() OVER (ORDER BY age) FROM users ORDER BY id
--> Workspace (read)
-->   Reason: window functions are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, age) from all shards

(SELECT id FROM users) ORDER BY id
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users UNION ALL SELECT id FROM users ORDER BY id
--> Workspace (read)
-->   Reason: UNION, INTERSECT and EXCEPT are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY id FOR UPDATE
--> Merge of all shards (locking read: primary)
-->   Merge by 1 bigint
-->   Text: SELECT id FROM users ORDER BY id FOR UPDATE

SELECT id, now() FROM users ORDER BY id
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY random()
--> Workspace (read: primary)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY id USING >
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT id FROM users ORDER BY 7
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards
-->   Guards: [0]

SELECT id FROM users ORDER BY 'id'
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

-- the rows of a view, or what a function reads, are on other shards too
SELECT u.id FROM users u, order_view v ORDER BY u.id
--> Workspace (read)
-->   Reason: view "order_view" reads the sharded table "orders"
-->   Fetch users (id) from all shards
-->   Fetch order_view (code) from all shards

SELECT count(*) FROM users u JOIN order_view v ON v.code = u.id
--> Workspace (read)
-->   Reason: view "order_view" reads the sharded table "orders"
-->   Fetch users (id) from all shards
-->   Fetch order_view (code) from all shards

SELECT u.id FROM users u CROSS JOIN spent_view v ORDER BY u.id
--> Workspace (read)
-->   Reason: view "spent_view" reads the sharded table "orders"
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   View spent_view

SELECT id, total_spent(id) FROM users ORDER BY id
--> Workspace (read)
-->   Reason: function "total_spent" uses the sharded table "orders"
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- shards: 1
SELECT id, count(*) FROM users GROUP BY 1 ORDER BY 2 LIMIT 3
--> PassThrough to shard s0 (read)
-->   Guards: [0, 1]
