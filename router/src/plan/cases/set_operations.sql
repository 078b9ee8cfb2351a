-- PgDog finding 2
SELECT * FROM users WHERE id = 1 UNION SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0], users = integer[1] (read)
-->   Refuse UNION, INTERSECT and EXCEPT are not supported across shards yet

SELECT * FROM users WHERE id = 1 UNION ALL SELECT * FROM users WHERE id = 2
--> PassThrough to the shard of users = integer[0], users = integer[1] (read)
-->   Shards: s1

SELECT id FROM users WHERE id = 5 UNION ALL SELECT user_id FROM orders WHERE user_id = 5
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Shards: s0

SELECT id FROM users UNION SELECT user_id FROM orders
--> Workspace (read)
-->   Reason: UNION, INTERSECT and EXCEPT are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT id FROM users UNION ALL SELECT user_id FROM orders
--> Workspace (read)
-->   Reason: UNION, INTERSECT and EXCEPT are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT id FROM users WHERE id = 5 EXCEPT SELECT user_id FROM orders WHERE user_id = 5
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Shards: s0

SELECT id FROM users WHERE id = 5 EXCEPT SELECT user_id FROM orders
--> Workspace (read)
-->   Reason: UNION, INTERSECT and EXCEPT are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id) from all shards

SELECT id FROM users WHERE id = 5 INTERSECT SELECT 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT code FROM countries UNION SELECT 'x'
--> PassThrough to any shard (read)

SELECT code FROM countries UNION SELECT key FROM settings
--> PassThrough to shard s0 (read)

SELECT code FROM countries UNION SELECT name FROM users
--> Workspace (read)
-->   Reason: UNION, INTERSECT and EXCEPT are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch countries (code, name) from any shard, or read in place
-->   Fetch users (name) from all shards

SELECT key FROM settings UNION SELECT name FROM users WHERE id = 1
--> PassThrough to the shard of users = integer[0], first shard only (read)
-->   Refuse the statement needs the first shard and another one together

SELECT key FROM settings UNION SELECT name FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0], first shard only (read)
-->   Shards: s0

VALUES (1), (2)
--> PassThrough to any shard (read)

VALUES ((SELECT count(*) FROM users))
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

TABLE users
--> Append of all shards (read)

TABLE countries
--> PassThrough to any shard (read)

TABLE settings
--> PassThrough to shard s0 (read)

(SELECT * FROM users WHERE id = 5)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

(SELECT * FROM users)
--> Append of all shards (read)

(SELECT * FROM users) LIMIT 5
--> Workspace (read)
-->   Reason: LIMIT and OFFSET are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM users WHERE id = 5 UNION ALL SELECT * FROM users WHERE id = 5 ORDER BY 1 LIMIT 3
--> PassThrough to the shard of users = integer[0], users = integer[1] (read)
-->   Shards: s0
