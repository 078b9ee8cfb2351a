-- the key of the preserved side restricts both
SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id
--> Append of all shards (read)

-- the key in ON does not restrict the preserved side
SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND u.id = 5
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.user_id = 5
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 5
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from the shard of orders = integer[0]
-->     Only: user_id = 5

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 5 WHERE u.id = 5
--> PassThrough to the shard of users = integer[1], orders = integer[0] (read)
-->   Shards: s0

-- a condition in WHERE on the optional side makes it an inner join
SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.user_id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.id = 5
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN orders o ON o.id = u.age WHERE o.user_id = 5
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from the shard of orders = integer[0]

-- IS NULL on the optional side is not the place of NULL keys (Citus #7700)
SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.user_id IS NULL
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = 5 AND o.user_id IS NULL
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.user_id = 5 OR o.user_id IS NULL
--> Append of all shards (read)

-- right joins are left joins
SELECT * FROM orders o RIGHT JOIN users u ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders o RIGHT JOIN users u ON o.user_id = u.id WHERE o.user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders o RIGHT JOIN users u ON o.user_id = u.id AND o.user_id = 5
--> Append of all shards (read)

-- a reference table on the preserved side (Citus #7696, Vitess #19545)
SELECT * FROM countries c LEFT JOIN users u ON u.name = c.code
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch countries (code, name, currency) from any shard, or read in place
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM countries c LEFT JOIN users u ON u.name = c.code AND u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM countries c LEFT JOIN users u ON u.name = c.code WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u RIGHT JOIN countries c ON u.name = c.code
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch countries (code, name, currency) from any shard, or read in place

SELECT * FROM users u FULL JOIN countries c ON u.name = c.code
--> Workspace (read)
-->   Reason: FULL JOIN is not supported across shards yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch countries (code, name, currency) from any shard, or read in place

SELECT * FROM (SELECT 'x' AS code) t LEFT JOIN users u ON u.name = t.code
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM (VALUES ('x'), ('y')) t (code) LEFT JOIN users u ON u.name = t.code
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM generate_series(1, 10) g LEFT JOIN users u ON u.id = g
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: users
-->   Fetch users (id, email, name, age, created) from all shards

-- nested (Citus #8838)
SELECT * FROM users u LEFT JOIN (countries c LEFT JOIN orders o ON o.country = c.code) ON c.code = u.name
--> Workspace (read)
-->   Reason: joining "users" and "orders" across shards is not supported yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch countries (code, name, currency) from any shard, or read in place
-->     Only: code IN (fetched users.name, if few)
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->     Only: country IN (SELECT code FROM countries WHERE code IN (fetched users.name, if few))

SELECT * FROM users u LEFT JOIN (countries c LEFT JOIN orders o ON o.country = c.code) ON c.code = u.name AND o.user_id = u.id
--> Append of all shards (read)

SELECT * FROM users u LEFT JOIN countries c ON c.code = u.name LEFT JOIN orders o ON o.user_id = u.id
--> Append of all shards (read)

SELECT * FROM (users u LEFT JOIN orders o ON o.user_id = u.id) LEFT JOIN order_items i ON i.user_id = o.user_id
--> Workspace (read)
-->   Reason: joining "users" and "order_items" across shards is not supported yet
-->   Bind join, if few: order_items
-->   Bind join, if few: users, orders
-->   Bind join, if few: users, orders, order_items
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   Fetch order_items (order_id, user_id, product_id, quantity) from all shards

SELECT * FROM (users u LEFT JOIN orders o ON o.user_id = u.id) LEFT JOIN order_items i ON i.user_id = o.user_id WHERE i.user_id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- full joins
SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id
--> Workspace (read)
-->   Reason: FULL JOIN is not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id AND u.id = 5
--> Workspace (read)
-->   Reason: FULL JOIN is not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id WHERE u.id = 5 AND o.user_id = 5
--> Append of the shards of users (= integer[0] and = integer[1]) (read)
-->   Shards: s0

SELECT * FROM orders FULL JOIN profiles USING (user_id) WHERE user_id = 5
--> Workspace (read)
-->   Reason: FULL JOIN is not supported across shards yet
-->   Bind join, if few: profiles
-->   Bind join, if few: orders
-->   Bind join, if few: orders, profiles
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   Fetch profiles (user_id, bio) from all shards

SELECT * FROM (SELECT * FROM users WHERE id = 5) u FULL JOIN orders o ON o.user_id = u.id
--> Workspace (read)
-->   Reason: FULL JOIN is not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM (SELECT * FROM users WHERE id = 5) u FULL JOIN (SELECT * FROM orders WHERE user_id = 5) o ON o.user_id = u.id
--> PassThrough to the shard of users = integer[0], orders = integer[1] (read)
-->   Shards: s0

-- merged columns of outer joins
SELECT * FROM orders LEFT JOIN profiles USING (user_id) WHERE user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders RIGHT JOIN profiles USING (user_id) WHERE user_id = 5
--> PassThrough to the shard of profiles = integer[0] (read)
-->   Shards: s0

SELECT * FROM orders LEFT JOIN profiles USING (user_id) WHERE profiles.user_id = 5
--> PassThrough to the shard of orders = integer[0] (read)
-->   Shards: s0

-- ON conditions among optional tables
SELECT * FROM users u LEFT JOIN (orders o JOIN order_items i ON i.user_id = o.user_id) ON o.user_id = u.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users u LEFT JOIN (orders o JOIN order_items i ON i.order_id = o.id) ON o.user_id = u.id WHERE u.id = 5
--> Workspace (read)
-->   Reason: joining "users" and "order_items" across shards is not supported yet
-->   Bind join, if few: order_items
-->   Bind join, if few: users, orders
-->   Bind join, if few: users, orders, order_items
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Fetch orders (id, user_id, total, status, country) from the shard of orders = integer[0]
-->     Only: id IN (fetched order_items.order_id, if few) AND user_id IN (SELECT id FROM users WHERE id = 5)
-->   Fetch order_items (order_id, user_id, product_id, quantity) from all shards
-->     Only: order_id IN (fetched orders.id, if few)

-- a constant of one optional side is not one of another
SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 5 LEFT JOIN order_items i ON i.user_id = u.id WHERE u.id = 6
--> PassThrough to the shard of users = integer[1], orders = integer[0] (read)
-->   Refuse joining "users" and "orders" across shards is not supported yet

-- rows that are only counted come condensed
SELECT u.id, count(o.id), sum(o.total) AS total FROM users u LEFT JOIN orders o ON o.user_id = u.age AND o.status LIKE 'n%' GROUP BY u.id HAVING count(o.id) > 1 ORDER BY count(o.id)
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id, total) from all shards
-->     Only: status LIKE 'n%'
-->     If far fewer: one row for each user_id, with pg_catalog.count("id"), pg_catalog.sum("total")

-- and so where the column is not qualified, and all is one group
SELECT count(quantity) FROM users JOIN order_items ON product_id = id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: order_items by product_id
-->   Bind join, if few: users
-->   Bind join, if few: users, order_items
-->   Fetch users (id) from all shards
-->     Only: id IN (fetched order_items.product_id, if few)
-->   Fetch order_items (product_id, quantity) from all shards
-->     Only: product_id IN (fetched users.id, if few)
-->     If far fewer: one row for each product_id, with pg_catalog.count("quantity")

-- not where something else tells how many rows there are
SELECT u.id, count(o.id), count(*) FROM users u LEFT JOIN orders o ON o.user_id = u.age GROUP BY u.id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT u.id, count(DISTINCT o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.age GROUP BY u.id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

SELECT u.id, count(o.id), max(u.age) FROM users u LEFT JOIN orders o ON o.user_id = u.age GROUP BY u.id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

-- nor where the name of a column would be another
SELECT u.id, -count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.age GROUP BY u.id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

-- nor by what is equal and yet differs
SELECT o.total, count(o.id) FROM users u JOIN orders o ON o.user_id = u.age GROUP BY o.total
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id, total) from all shards

-- a common table expression is no table
WITH orders AS (SELECT id, user_id FROM orders) SELECT u.id, count(orders.id) FROM users u LEFT JOIN orders ON orders.user_id = u.age GROUP BY u.id
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

-- ORDER BY behind parentheses may count, too
(SELECT u.id FROM users u LEFT JOIN orders o ON o.user_id = u.age GROUP BY u.id HAVING count(o.id) > 1) ORDER BY count(o.id)
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

-- where columns are joined by their names, all may be
SELECT name, count(sku) FROM users JOIN products USING (id) JOIN order_items ON product_id = age GROUP BY name
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: order_items
-->   Bind join, if few: users, products
-->   Bind join, if few: users, products, order_items
-->   Fetch users (id, name, age) from all shards
-->   Fetch products (id, sku) from all shards
-->   Fetch order_items (product_id) from all shards

-- what has a table's name in a subquery's result is no row of the table
SELECT orders, count(*) FROM (SELECT o.id AS orders FROM users u JOIN orders o ON o.user_id = u.age) AS s GROUP BY orders ORDER BY orders
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: orders
-->   Bind join, if few: users
-->   Bind join, if few: users, orders
-->   Fetch users (id, age) from all shards
-->   Fetch orders (id, user_id) from all shards

-- a row of the table
(SELECT u.id FROM users u JOIN orders o ON o.user_id = u.age) ORDER BY o
--> Workspace (read)
-->   Reason: ORDER BY is not supported across shards yet
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards
