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
