-- joined on the key, bound by one side
SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- bound by the other side, through three tables, int8 and int4
SELECT * FROM users u JOIN orders o ON o.user_id = u.id JOIN order_items i ON i.user_id = o.user_id AND i.order_id = o.id WHERE i.user_id = $1
--> PassThrough to the shard of users = $1 (read)

-- the join condition in WHERE
SELECT * FROM users u, orders o WHERE u.id = o.user_id AND o.user_id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u, orders o WHERE u.id = o.user_id
--> Append of all shards (read)

-- not joined on the key
SELECT * FROM users u JOIN orders o ON o.id = u.id
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders by id
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->     Only: id IN (fetched orders.id, if few)
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: id IN (fetched users.id, if few)

-- not joined at all
SELECT * FROM users, orders
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- each bound to a value of its own: decided at binding
SELECT * FROM users u, orders o WHERE u.id = 1 AND o.user_id = 2
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Shards: s1

SELECT * FROM users u, orders o WHERE u.id = 1 AND o.user_id = 3
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Refuse joining "users" and "orders" across shards is not supported yet

-- both bound, not joined
SELECT * FROM users u, orders o WHERE u.id = $1 AND o.user_id = $1
--> PassThrough to the shard of users = $1 (read)

-- one side bound, not joined on the key
SELECT * FROM users u JOIN orders o ON o.id = u.age WHERE u.id = 5
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users JOIN profiles ON id = user_id WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders JOIN profiles USING (user_id) WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders JOIN profiles USING (user_id)
--> Append of all shards (read)

SELECT user_id FROM orders JOIN profiles USING (user_id) JOIN order_items USING (user_id) WHERE order_items.user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders NATURAL JOIN profiles WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

-- NATURAL over the key
SELECT * FROM users NATURAL JOIN products
--> Append of all shards (read)

-- self join
SELECT * FROM users a JOIN users b ON a.id = b.id WHERE a.id = 7
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users a JOIN users b ON a.id = b.age WHERE a.id = 7
--> Workspace (read)
-->   Reason: joining "users" and "users" across shards is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

-- colocated by chance of the same method and type is colocated
SELECT * FROM users u JOIN products p ON p.id = u.id
--> Append of all shards (read)

-- another method: equal keys are on different shards
SELECT * FROM users u JOIN metrics m ON m.id = u.id
--> Workspace (read)
-->   Reason: joining "users" and "metrics" across shards is not supported yet
-->   Bind join, if few: metrics
-->   Bind join, if few: users
-->   Bind join, if few: users, metrics
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch metrics (id, v) from all shards

-- but not when both are bound
SELECT * FROM users u JOIN metrics m ON m.id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0], metrics = integer[0] (read)
-->   Refuse joining "users" and "metrics" across shards is not supported yet

SELECT * FROM users u JOIN accounts a ON a.name = u.name
--> Workspace (read)
-->   Reason: joining "users" and "accounts" across shards is not supported yet
-->   Bind join, if few: accounts
-->   Bind join, if few: users
-->   Bind join, if few: users, accounts
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch accounts (name, balance) from all shards

-- through a reference table's column
SELECT * FROM users u JOIN countries c ON c.code = u.name WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u JOIN countries c ON c.code = u.name
--> Append of all shards (read)

-- equality through a column of another table, and a constant
SELECT * FROM accounts a JOIN countries c ON c.name = a.name WHERE c.name = 'x'
--> PassThrough to the shard of accounts = string[0] (read)
-->   Shards: s1

SELECT * FROM users u CROSS JOIN countries
--> Append of all shards (read)

SELECT * FROM (users u JOIN orders o ON o.user_id = u.id) WHERE u.id = 3
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- row comparison
SELECT * FROM orders WHERE (user_id, id) = (5, 6)
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders WHERE (id, user_id) IN ((1, 2), (3, 4))
--> Append of the shards of orders in (integer[1], integer[3]) (read)
-->   Shards: s0, s1

SELECT * FROM orders o JOIN order_items i ON (o.id, o.user_id) = (i.order_id, i.user_id)
--> Append of all shards (read)

-- a sharded and an unsharded table
SELECT * FROM users u JOIN settings s ON s.key = u.name
--> Workspace (read)
-->   Reason: combining a sharded table with something on the first shard only is not supported yet
-->   Bind join, if few: settings
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->     Only: name IN (fetched settings.key, if few)
-->   Fetch settings (key, value) from shard s0, or read in place
-->     Only: key IN (fetched users.name, if few)

SELECT * FROM users u JOIN settings s ON s.key = u.name WHERE u.id = 1
--> PassThrough to the shard of users = integer[0], first shard only (read)
-->   Refuse the statement needs the first shard and another one together

SELECT * FROM users u JOIN settings s ON s.key = u.name WHERE u.id = 5
--> PassThrough to the shard of users = integer[0], first shard only (read)
-->   Shards: s0

-- VALUES as a table of keys
SELECT * FROM users u JOIN (VALUES (1), (2)) v (id) ON v.id = u.id
--> Append of the shards of users in (integer[0], integer[1]) (read)
-->   Shards: s1

SELECT * FROM users u JOIN (VALUES (1, 'a'), (2, 'b')) v ON v.column1 = u.id
--> Append of the shards of users in (integer[0], integer[2]) (read)
-->   Shards: s1

SELECT * FROM users u JOIN generate_series(1, 5) g (n) ON g.n = u.id
--> Append of all shards (read)

SELECT * FROM users u JOIN unnest($1::int8[]) AS t (id) ON t.id = u.id
--> Append of all shards (read)

-- aliases hide names
SELECT * FROM users orders JOIN orders users ON users.user_id = orders.id WHERE orders.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users AS u (a, b) WHERE a = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users AS u (a, b) WHERE id = 5
--> Append of all shards (read)

SELECT public.users.name FROM public.users WHERE public.users.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- an ambiguous column is PostgreSQL's error, not a key
SELECT * FROM users, products WHERE id = 5
--> Workspace (read)
-->   Reason: joining "users" and "products" across shards is not supported yet
-->   Bind join, if few: products
-->   Bind join, if few: users
-->   Bind join, if few: users, products
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch products (id, sku, price) from all shards

-- layer: bind join
-- What could be answered otherwise is given rows, if they can be.
SELECT * FROM users
--> Workspace (read)
-->   Reason: switchyard.layer is set
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT count(*) FROM users JOIN orders ON orders.user_id = users.id
--> Workspace (read)
-->   Reason: switchyard.layer is set
-->   Bind join, if few: users, orders
-->   Fetch users (id) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT * FROM users WHERE id = 5
--> Workspace (read)
-->   Reason: switchyard.layer is set
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5

SELECT code FROM countries
--> PassThrough to any shard (read)

-- layer: merge
SELECT upper(name), 1 + count(*) FROM users GROUP BY 1
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Fetch users (name) from all shards
-->   Rows made by all shards
-->     Text:  SELECT (upper(name)) AS "switchyard 1", (count(*)) AS "switchyard 2" FROM users GROUP BY 1
-->     Finished by: SELECT  "switchyard 1" , 1 + "switchyard 2"  FROM (SELECT "switchyard 1", coalesce(pg_catalog.sum("switchyard 2"), 0)::pg_catalog.int8 AS "switchyard 2" FROM pg_temp."switchyard rows" GROUP BY 1) AS "switchyard"
-->   Guards: [1]

SELECT u.name, o.id FROM users u JOIN orders o ON o.id = u.id
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Fetch users (id, name) from all shards
-->     Only: id IN (fetched orders.id, if few)
-->   Fetch orders (id) from all shards
-->     Only: id IN (fetched users.id, if few)
