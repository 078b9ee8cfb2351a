-- not parsed: judged by the names in it, whose constants are data
SELECT * FROM settings WHERE key BETWEEN 'a' AND 'users' AND '<a/>'::xml IS DOCUMENT
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT * FROM users WHERE age BETWEEN 1 AND 2 AND '<a/>'::xml IS DOCUMENT
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM settings s WHERE s.value BETWEEN (SELECT max(name) FROM users) AND 'b' AND '<a/>'::xml IS DOCUMENT
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch settings (key, value) from shard s0, or read in place
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM countries WHERE code BETWEEN 'a' AND 'b' AND '<a/>'::xml IS DOCUMENT
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT query_to_xml('SELECT * FROM users', true, true, '') WHERE 1 BETWEEN 1 AND 2 AND '<a/>'::xml IS DOCUMENT
--> Refuse 0A000: the code runs SQL that the router cannot see
--> DETAIL: What "QUERY_TO_XML" runs may touch sharded tables.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

SELECT total_spent(1) WHERE 1 BETWEEN 1 AND 2 AND '<a/>'::xml IS DOCUMENT
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT any_sql('users') WHERE 1 BETWEEN 1 AND 2 AND '<a/>'::xml IS DOCUMENT
--> Refuse 0A000: the code runs SQL that the router cannot see
--> DETAIL: What "any_sql" runs may touch sharded tables.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

DELETE FROM countries WHERE code BETWEEN 'a' AND 'b' AND '<a/>'::xml IS DOCUMENT
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may write the reference table "countries", which every shard has (not parsed).
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

UPDATE settings SET value[1] = 'x'
--> PassThrough to shard s0 (primary)

UPDATE users SET name[1] = 'x' WHERE id = 5
--> PassThrough to the shard of users = integer[2] (primary)
-->   Shards: s0

SELECT * FROM order_view WHERE code BETWEEN 1 AND 2 AND '<a/>'::xml IS DOCUMENT
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch order_view (code, name) from all shards

DELETE FROM users WHERE CURRENT OF c
--> Session: OfCursor { name: "c", table: TableName { schema: "public", name: "users" } }

WITH gone AS (DELETE FROM ONLY public.users u WHERE CURRENT OF c RETURNING id) SELECT id FROM gone
--> Session: OfCursor { name: "c", table: TableName { schema: "public", name: "users" } }

-- of the others' rows the shard of the row has some only
WITH b AS (UPDATE users SET name = 'x' WHERE CURRENT OF c RETURNING id) SELECT u.id FROM public.users u LEFT JOIN b ON b.id = u.id
--> Refuse 0A000: WHERE CURRENT OF is not supported in this statement
--> DETAIL: The row that the cursor is at is on one shard, and the statement needs others.
--> HINT: Find the row by its key.

WITH a AS (DELETE FROM orders), b AS (SELECT 1) UPDATE users SET name = 'x' WHERE CURRENT OF c RETURNING users.id
--> Refuse 0A000: WHERE CURRENT OF is not supported in this statement
--> DETAIL: The row that the cursor is at is on one shard, and the statement needs others.
--> HINT: Find the row by its key.

WITH b AS (UPDATE users SET name = 'x' WHERE CURRENT OF c RETURNING users.id, country) SELECT b.id, c.name FROM b JOIN countries c ON c.code = b.country
--> Session: OfCursor { name: "c", table: TableName { schema: "public", name: "users" } }

EXPLAIN DELETE FROM users WHERE CURRENT OF c
--> Refuse 0A000: EXPLAIN of WHERE CURRENT OF is not supported

UPDATE users SET id = 7 WHERE CURRENT OF c
--> Refuse 0A000: WHERE CURRENT OF is not supported in this statement
--> DETAIL: The row that the cursor is at is on one shard, and the statement needs others.
--> HINT: Find the row by its key.

DELETE FROM settings WHERE CURRENT OF c
--> PassThrough to shard s0 (primary)

SELECT xmlelement(name foo, key) FROM settings
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS t
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT * FROM settings WHERE key = U&'a' UESCAPE '!'
--> PassThrough to shard s0 (primary)
-->   May use a sequence

-- a name in escapes after AS is no relation
SELECT 'x' AS U&"d\0061t" UESCAPE '!'
--> Write on shard s0 (primary)
-->   May use a sequence
-->   Keeps unique: members_email_key

SELECT 'x' FROM U&"d\0061t"
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "U&"…"" (tokenized differently). A name in it is written in escapes.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

-- a method of sampling is no function that changes anything
SELECT count(*) FROM users TABLESAMPLE SYSTEM (100) REPEATABLE (1+2)
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards
