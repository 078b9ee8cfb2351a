SELECT * FROM users WHERE id IN (SELECT user_id FROM orders WHERE user_id = 5)
--> Append of all shards (read)

SELECT * FROM users WHERE id = 5 AND id IN (SELECT user_id FROM orders)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id IN (SELECT user_id FROM orders)
--> Append of all shards (read)

-- NOT IN sees NULLs of every shard (Vitess #14605)
SELECT * FROM users WHERE id NOT IN (SELECT user_id FROM orders)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users WHERE id = 5 AND id NOT IN (SELECT user_id FROM orders)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users WHERE id = 5 AND id NOT IN (SELECT user_id FROM orders WHERE user_id = 5)
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5 OR id IN (SELECT user_id FROM orders)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->     Only: (id = 5 OR id IN (SELECT user_id FROM orders))
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users WHERE NOT (id IN (SELECT user_id FROM orders))
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)
--> Append of all shards (read)

SELECT * FROM users u WHERE u.id = 5 AND EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)
--> Append of all shards (read)

SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.country = u.name)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->     Indexes: name
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: country IN (fetched users.name, if few)
-->     Indexes: country

SELECT * FROM users u WHERE u.id = 5 AND EXISTS (SELECT 1 FROM orders o WHERE o.country = u.name)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->     Indexes: name
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: country IN (fetched users.name, if few)
-->     Indexes: country

SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM countries c WHERE c.code = u.name)
--> Append of all shards (read)

-- what a condition of EXISTS says restricts the inside only
SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id AND o.user_id = 5)
--> Append of all shards (read)

SELECT (SELECT count(*) FROM orders o WHERE o.user_id = u.id) FROM users u
--> Append of all shards (read)

SELECT (SELECT count(*) FROM orders o WHERE o.user_id = u.id) FROM users u WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT (SELECT count(*) FROM orders) FROM users
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from all shards
-->   Fetch orders (id) from all shards

SELECT (SELECT count(*) FROM orders) FROM users WHERE id = 5
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id) from all shards

SELECT (SELECT max(total) FROM orders o WHERE o.user_id = u.id AND o.user_id = 5) FROM users u
--> Append of all shards (read)

-- no table at the top level (PgDog finding 1)
SELECT EXISTS (SELECT 1 FROM users)
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT EXISTS (SELECT 1 FROM users WHERE id = 5)
--> PassThrough to the shard of users = integer[1] (read)
-->   Shards: s0

SELECT (SELECT count(*) FROM users)
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT (SELECT count(*) FROM users WHERE id = 5)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT (SELECT name FROM users WHERE id = 1), (SELECT name FROM users WHERE id = 5)
--> PassThrough to the shard of users = integer[0], users = integer[1] (read)
-->   Refuse this use of a sharded table needs the rows of all shards together, which is not supported yet

SELECT ARRAY (SELECT id FROM users)
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

SELECT ARRAY (SELECT total FROM orders WHERE user_id = 5 ORDER BY 1)
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT 1 WHERE 5 IN (SELECT id FROM users)
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id) from all shards

-- derived tables
SELECT * FROM (SELECT * FROM users) u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT id AS k FROM users) u WHERE k = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT id AS k FROM users) u WHERE id = 5
--> Append of all shards (read)

SELECT * FROM (SELECT * FROM users WHERE id = 5) u JOIN orders o ON o.user_id = u.id
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT * FROM users WHERE id = 5 ORDER BY name LIMIT 1) u JOIN orders o ON o.user_id = u.id
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- a condition does not reach through LIMIT
SELECT * FROM (SELECT * FROM users ORDER BY name LIMIT 10) u WHERE id = 5
--> Workspace (read)
-->   Reason: ordered subqueries are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM (SELECT * FROM users ORDER BY name) u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT DISTINCT id FROM users) u WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT DISTINCT ON (name) id, name FROM users ORDER BY name) u WHERE id = 5
--> Workspace (read)
-->   Reason: ordered subqueries are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY user_id) t WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY user_id) t
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users u JOIN (SELECT user_id, count(*) FROM orders GROUP BY user_id) t ON t.user_id = u.id
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN (SELECT user_id, count(*) FROM orders GROUP BY user_id) t ON t.user_id = u.id
--> Append of all shards (read)

SELECT * FROM users u JOIN (SELECT user_id FROM orders ORDER BY total LIMIT 5) t ON t.user_id = u.id
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users u JOIN (SELECT country, count(*) FROM orders GROUP BY country) t ON t.country = u.name
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM (SELECT user_id, row_number() OVER (ORDER BY total) FROM orders) t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM (SELECT user_id, count(*) FROM orders GROUP BY ROLLUP (user_id)) t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM (SELECT max(user_id) AS user_id FROM orders) t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: orders
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- an ungrouped aggregate makes a row from nothing (Vitess #12540)
SELECT * FROM users u, LATERAL (SELECT count(*) FROM orders o WHERE o.user_id = u.id AND o.user_id = 5) t
--> Append of all shards (read)

SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id ORDER BY total LIMIT 3) t
--> Append of all shards (read)

SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id) t WHERE t.user_id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u, LATERAL (SELECT * FROM orders o ORDER BY total LIMIT 3) t
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- a derived table that is not lateral does not see its neighbours
SELECT * FROM users u, (SELECT * FROM orders o WHERE o.user_id = u.id) t WHERE u.id = 5
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- set operations inside
SELECT * FROM (SELECT user_id FROM orders UNION ALL SELECT user_id FROM profiles) t WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u JOIN (SELECT user_id FROM orders UNION SELECT user_id FROM profiles) t ON t.user_id = u.id
--> Append of all shards (read)

SELECT * FROM (SELECT user_id FROM orders UNION ALL SELECT user_id FROM profiles LIMIT 5) t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: profiles
-->   Bind join, if few: orders
-->   Bind join, if few: orders, profiles
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   Fetch profiles (user_id, bio) from all shards

SELECT * FROM (SELECT user_id FROM orders UNION ALL (SELECT user_id FROM profiles LIMIT 5)) t WHERE user_id = 5
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: profiles
-->   Bind join, if few: orders
-->   Bind join, if few: orders, profiles
-->   Fetch orders (id, user_id, total, status, country) from the shard of orders = integer[1]
-->   Fetch profiles (user_id, bio) from all shards

SELECT * FROM (SELECT user_id FROM orders UNION ALL SELECT id FROM audit_log) t WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0], first shard only (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5 AND id IN (SELECT user_id FROM orders UNION SELECT user_id FROM profiles)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- a column of an inner table hides that of an outer one
SELECT * FROM users WHERE id = 5 AND EXISTS (SELECT 1 FROM orders WHERE id = 5)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: id = 5

SELECT * FROM users WHERE id = 5 AND EXISTS (SELECT 1 FROM orders WHERE user_id = id)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->     Indexes: id
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: user_id = id
-->     Indexes: id, user_id

SELECT * FROM orders WHERE user_id = 5 AND EXISTS (SELECT 1 FROM (SELECT user_id::text FROM profiles) p WHERE user_id = '5')
--> Workspace (read)
-->   Reason: joining "orders" and "profiles" across shards is not supported yet
-->   Bind join, if few: profiles
-->   Bind join, if few: orders
-->   Bind join, if few: orders, profiles
-->   Fetch orders (id, user_id, total, status, country) from the shard of orders = integer[0]
-->     Only: user_id = 5
-->   Fetch profiles (user_id, bio) from all shards

-- reference tables below a scatter
SELECT * FROM users u WHERE u.name IN (SELECT code FROM countries)
--> Append of all shards (read)

SELECT * FROM users u WHERE u.name = (SELECT code FROM countries LIMIT 1)
--> Workspace (read)
-->   Reason: a subquery with LIMIT, DISTINCT ON or window functions is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch countries (code, name, currency) from any shard, or read in place

SELECT * FROM users u WHERE u.name = (SELECT max(code) FROM countries)
--> Append of all shards (read)

-- row_number inside one shard
SELECT * FROM (SELECT id, row_number() OVER () FROM users WHERE id = 5) t
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- any subquery
SELECT * FROM users WHERE id = 5 AND id = ANY (SELECT user_id FROM orders)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5 AND id > ALL (SELECT user_id FROM orders)
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users WHERE id = 5 AND total_spent(id) > 5
--> Workspace (read)
-->   Reason: function "total_spent" uses the sharded table "orders"
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- PostgreSQL keeps the order of a subquery where nothing else orders the rows
SELECT * FROM (SELECT id, name FROM users ORDER BY name, id) x LIMIT 3
--> Workspace (read)
-->   Reason: ordered subqueries are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM (SELECT id, name FROM users ORDER BY name, id) x
--> Workspace (read)
-->   Reason: ordered subqueries are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

WITH x AS (SELECT id FROM users ORDER BY id) SELECT id + 1 FROM (SELECT * FROM x WHERE name > 'b') y
--> Workspace (read)
-->   Reason: ordered subqueries are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT count(*) FROM (SELECT id FROM users ORDER BY name) x
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM (SELECT id FROM users ORDER BY name) x

SELECT id FROM (SELECT id FROM users ORDER BY name) x ORDER BY id
--> Merge of all shards (read)
-->   Merge by 1 bigint
-->   Text: SELECT id FROM (SELECT id FROM users ORDER BY name) x ORDER BY id

-- HAVING alone: the rows may not be looked at
SELECT 1 FROM users WHERE 1 / age = 1 HAVING 1 < 2
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (age) from all shards

-- ROLLUP among grouping sets is no function
SELECT country, count(*) FROM orders GROUP BY GROUPING SETS (ROLLUP (country, status), status)
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Fetch orders (status, country) from all shards
