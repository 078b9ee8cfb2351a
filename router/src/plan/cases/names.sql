-- folding and quoting
SELECT * FROM USERS WHERE ID = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM "Odd" WHERE id = 5
--> PassThrough to the shard of Odd = integer[0] (read)
-->   Shards: s0

SELECT * FROM Odd WHERE id = 5
--> PassThrough to shard s0 (read)
-->   Unknown: odd

SELECT * FROM "users" WHERE "id" = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM "Users" WHERE id = 5
--> PassThrough to shard s0 (read)
-->   Unknown: Users

SELECT * FROM U&"users" WHERE id = 5
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "U&"…"" (tokenized differently). A name in it is written in escapes.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

-- schemas
SELECT * FROM audit.users
--> PassThrough to shard s0 (read)

SELECT * FROM public.users
--> Append of all shards (read)

SELECT * FROM nowhere.users
--> Refuse 55000: table "users" is too new: the router has not read its definition yet
--> HINT: Run the statement again.

SELECT * FROM pg_catalog.pg_class
--> PassThrough to shard s0 (read)

SELECT * FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
--> PassThrough to shard s0 (read)

SELECT * FROM information_schema.tables
--> PassThrough to shard s0 (read)

SELECT * FROM pg_class c JOIN users u ON u.name = c.relname
--> Refuse 0A000: combining a sharded table with a temporary table or the system catalogue is not supported across shards yet
--> DETAIL: It reads the system catalogue, which differs from shard to shard.

SELECT * FROM pg_class c JOIN users u ON u.name = c.relname WHERE u.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT count(*) FROM pg_stat_activity
--> PassThrough to shard s0 (read: primary)

SELECT * FROM other_database.public.users
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards

-- search_path: audit, public
SELECT * FROM users
--> PassThrough to shard s0 (read)

SELECT * FROM orders
--> Append of all shards (read)

SELECT * FROM public.users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- search_path: audit
SELECT * FROM orders
--> Refuse 55000: table "orders" is too new: the router has not read its definition yet
--> HINT: Run the statement again.

SELECT lower('x')
--> PassThrough to any shard (read)

SELECT pure(1)
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Unknown: pure

SELECT public.pure(1)
--> PassThrough to any shard (read)

-- search_path: public
-- words sqlparser takes for names
SELECT * FROM ONLY users
--> Append of all shards (read)

SELECT * FROM ONLY (users)
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch ONLY users (id, email, name, age, created) from all shards

SELECT * FROM users LEFT
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards

SELECT id isnull FROM users
--> Append of all shards (read)

SELECT id AS isnull FROM users
--> Append of all shards (read)

SELECT id AS order FROM users
--> Append of all shards (read)

SELECT * FROM users WHERE id ISNULL
--> Append of the shards of users is null (read)
-->   Shards: s0

SELECT * FROM users WHERE id NOTNULL
--> Append of all shards (read)

SELECT u.id u FROM users u
--> Append of all shards (read)

-- a name is cut at 63 bytes
SELECT * FROM users aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggggggg WHERE aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggghhhh.id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

-- temporary: users basket
SELECT * FROM users
--> PassThrough to shard s0 (primary)

SELECT * FROM public.users
--> Append of all shards (read)

SELECT * FROM basket JOIN public.users u ON u.id = basket.id
--> Refuse 0A000: combining a sharded table with a temporary table or the system catalogue is not supported across shards yet
--> DETAIL: It reads a temporary table.

SELECT * FROM basket JOIN public.users u ON u.id = basket.id WHERE u.id = 5
--> PassThrough to the shard of users = integer[0], first shard only (primary)
-->   Shards: s0

SELECT * FROM basket JOIN public.users u ON u.id = basket.id WHERE u.id = 1
--> PassThrough to the shard of users = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together

SELECT * FROM pg_temp.basket
--> PassThrough to shard s0 (primary)

INSERT INTO basket VALUES (1)
--> PassThrough to shard s0 (primary)
-->   May use a sequence

INSERT INTO basket SELECT * FROM countries
--> PassThrough to shard s0 (primary)
-->   May use a sequence

DROP TABLE basket
--> PassThrough to shard s0 (primary)

TRUNCATE basket
--> PassThrough to shard s0 (primary)

CREATE INDEX ON basket (id)
--> PassThrough to shard s0 (primary)

ANALYZE basket
--> PassThrough to shard s0 (primary)

-- temporary: none
SELECT * FROM pg_temp.basket
--> PassThrough to shard s0 (read)
-->   Unknown: basket

-- unlogged tables are not on replicas
SELECT * FROM scratch
--> PassThrough to shard s0 (primary)

-- comments and strings hide nothing
SELECT /* users */ 1 -- users
--> PassThrough to any shard (read)

SELECT 'users'
--> PassThrough to any shard (read)

SELECT * /* WHERE id = 1 */ FROM users WHERE id = 5 -- AND id = 1
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5 /* nested /* comment */ AND id = 1 */
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE name = ' WHERE id = 1' AND id = 5
--> PassThrough to the shard of users = integer[1] (read)
-->   Shards: s0
