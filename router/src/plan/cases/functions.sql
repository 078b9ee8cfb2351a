SELECT 1 + 1
--> PassThrough to any shard (read)

SELECT version()
--> PassThrough to any shard (read)

SELECT current_database(), current_user, current_schema, current_schemas(true)
--> PassThrough to any shard (read)

SELECT pg_is_in_recovery()
--> PassThrough to shard s0 (primary)

SELECT nextval('s')
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Guards: [0]

SELECT currval('s')
--> PassThrough to shard s0 (primary)
-->   Given: what the session remembers of sequences
-->   Reads the state of a sequence

SELECT lastval()
--> PassThrough to shard s0 (primary)
-->   Given: what the session remembers of sequences
-->   Reads the state of a sequence

SELECT setval('s', 5)
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Guards: [0]

SELECT nextval('s') FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[1], first shard only (primary)
-->   Shards: s0
-->   May use a sequence
-->   Guards: [0]

SELECT nextval('s') FROM users WHERE id = 1
--> PassThrough to the shard of users = integer[1], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   May use a sequence
-->   Guards: [0]

SELECT pg_advisory_lock(1)
--> PassThrough to shard s0 (locking read: primary)
-->   Pins: AdvisoryLock

SELECT pg_try_advisory_lock(1, 2)
--> PassThrough to shard s0 (locking read: primary)
-->   Pins: AdvisoryLock

SELECT pg_advisory_xact_lock(1)
--> PassThrough to shard s0 (locking read: primary)

SELECT pg_advisory_unlock(1)
--> PassThrough to shard s0 (locking read: primary)

SELECT pg_advisory_xact_lock(1) FROM users WHERE id = 1
--> PassThrough to the shard of users = integer[1], first shard only (locking read: primary)
-->   Refuse the statement needs the first shard and another one together

SELECT pg_sleep(1)
--> PassThrough to any shard (read: primary)

SELECT pg_notify('a', 'b')
--> PassThrough to shard s0 (primary)

SELECT txid_current()
--> PassThrough to shard s0 (primary)

SELECT set_config('work_mem', '1MB', false)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Slot(1), local Bool(false)

SELECT set_config('work_mem', '1MB', true)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Slot(1), local Bool(true)

SELECT set_config('app.user', $1, true)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Param(1), local Bool(true)

SELECT pg_catalog.set_config('search_path', '', false)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Slot(1), local Bool(false)

SELECT set_config('search_path', $1, false)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Param(1), local Bool(false)

SELECT set_config('search_path', name, false) FROM settings
--> PassThrough to shard s0 (read)
-->   Sets: Slot(0) = ?, local Bool(false)

SELECT set_config('role', 'bob', true)
--> PassThrough to any shard (read)
-->   Sets: Slot(0) = Slot(1), local Bool(true)

SELECT set_config($1, 'x', true)
--> PassThrough to any shard (read)
-->   Sets: Param(1) = Slot(0), local Bool(true)

SELECT query_to_xml('SELECT * FROM users', true, true, '')
--> Refuse 0A000: function "query_to_xml" is not supported across shards
--> DETAIL: It reads tables that are named by its arguments.

SELECT table_to_xml('users', true, true, '')
--> Refuse 0A000: function "table_to_xml" is not supported across shards
--> DETAIL: It reads tables that are named by its arguments.

SELECT total_spent(5)
--> Workspace (read)
-->   Reason: function "total_spent" uses the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT outer_total()
--> Workspace (read)
-->   Reason: function "outer_total" uses the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT * FROM total_spent(5)
--> Workspace (read)
-->   Reason: function "total_spent" uses the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT any_sql('users')
--> Refuse 0A000: function "any_sql" runs SQL that the router cannot see
--> HINT: Name the shard it runs on: /* switchyard: shard=… */.

SELECT touch()
--> PassThrough to shard s0 (primary)

SELECT in_c()
--> PassThrough to shard s0 (primary)

SELECT touch() FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

SELECT pure(5)
--> PassThrough to any shard (read)

SELECT steady()
--> PassThrough to any shard (read)

SELECT * FROM generate_series(1, 10)
--> PassThrough to any shard (read)

SELECT * FROM unnest($1::int[], $2::text[]) WITH ORDINALITY
--> PassThrough to any shard (read)

SELECT * FROM json_to_recordset($1) AS x (a int, b text)
--> PassThrough to any shard (read)

SELECT * FROM jsonb_each('{}') e, LATERAL (SELECT e.key) k
--> PassThrough to any shard (read)

SELECT no_such_function()
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Unknown: no_such_function

SELECT lo_create(0)
--> PassThrough to shard s0 (primary)

SELECT count(*), sum(x) FROM (VALUES (1), (2)) v (x)
--> PassThrough to any shard (read)

SELECT f(a => 1, b := 2)
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Unknown: f

SELECT concat(VARIADIC ARRAY['a', 'b'])
--> PassThrough to any shard (read)

SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM (VALUES (1)) v (x)
--> PassThrough to any shard (read)

SELECT * FROM spent_view
--> Workspace (read)
-->   Reason: view "spent_view" reads the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   View spent_view

SELECT * FROM settings_view
--> PassThrough to shard s0 (read)

SELECT * FROM order_view WHERE code = 5
--> Workspace (read)
-->   Reason: view "order_view" reads the sharded table "orders"
-->   Fetch order_view (code, name) from all shards

SELECT * FROM deep_view
--> Workspace (read)
-->   Reason: view "deep_view" reads the sharded table "orders"
-->   Fetch deep_view (code, name) from all shards

UPDATE pg_settings SET setting = 'x'
--> Refuse 0A000: writing the system relation "pg_settings" is not supported

-- what pg_dump says
SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'
--> PassThrough to shard s0 (read: primary)
-->   Sets: Text("restrict_nonsystem_relation_kind") = ?, local Bool(false)
-->   Guards: [1]

SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'search_path'
--> PassThrough to shard s0 (read: primary)
-->   Sets: Text("search_path") = ?, local Bool(false)
-->   Guards: [1]

SELECT set_config(name, 'x', false) FROM pg_settings WHERE name <> 'search_path'
--> Refuse 0A000: set_config of a setting whose name is not known is not supported here
--> DETAIL: The setting decides how the router reads later statements.
--> HINT: Use SET.

-- A replica would say something else.
SELECT current_setting('transaction_read_only')
--> PassThrough to any shard (read: primary)

SELECT seq_scan FROM pg_stat_user_tables
--> PassThrough to shard s0 (read: primary)

SELECT setting FROM pg_settings WHERE name = 'in_hot_standby'
--> PassThrough to shard s0 (read: primary)

-- Volatile, but nothing is written.
SELECT clock_timestamp(), gen_random_uuid()
--> PassThrough to any shard (read: primary)

SELECT setseed(0.5)
--> PassThrough to shard s0 (primary)
-->   Seeds random()

-- ONLY in a view: the rows that a table has itself are not told from its children's
SELECT code FROM own_orders
--> Workspace (read)
-->   Reason: view "own_orders" reads the sharded table "orders"
-->   Fetch own_orders (code) from all shards

-- code that only reads runs where the rows are brought to, whatever it is declared as
SELECT spends_most()
--> Workspace (primary)
-->   Reason: function "spends_most" uses the sharded table "users"
-->   Fetch users (id, email, name, age, created) from all shards
-->   Fetch orders (id, user_id, total, status, country) from all shards

SELECT two_tables() FROM orders
--> Workspace (read)
-->   Reason: function "two_tables" uses the sharded table "products"
-->   Fetch orders (id) from all shards
-->   Fetch audit_log (id, message, user_id) from shard s0, or read in place
-->   Fetch products (id, sku, price) from all shards

-- its tables are those of the client's own names
-- search_path: audit, public
SELECT two_tables(), spends_most()
--> Workspace (primary)
-->   Reason: function "two_tables" uses the sharded table "products"
-->   Fetch audit_log (id, message, user_id) from shard s0, or read in place
-->   Fetch products (id, sku, price) from all shards
-->   Fetch audit.users (id, note) from shard s0, or read in place
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- search_path: public
-- temporary: products
SELECT two_tables()
--> Refuse 0A000: function "two_tables" uses the sharded table "products"
--> DETAIL: Functions that use sharded tables cannot be run on one shard and see all rows. A function in it may read a temporary table.
--> HINT: Run its statements from the client, or name the shard: /* switchyard: shard=… */.

-- temporary: none
-- code that names a schema, or makes a table
SELECT by_schema()
--> Refuse 0A000: function "by_schema" uses the sharded table "users"
--> DETAIL: Functions that use sharded tables cannot be run on one shard and see all rows.
--> HINT: Run its statements from the client, or name the shard: /* switchyard: shard=… */.

SELECT makes_table()
--> Refuse 0A000: function "makes_table" uses the sharded table "users"
--> DETAIL: Functions that use sharded tables cannot be run on one shard and see all rows.
--> HINT: Run its statements from the client, or name the shard: /* switchyard: shard=… */.

SELECT total_spent(o.*) FROM orders o
--> Refuse 0A000: function "total_spent" uses the sharded table "orders"
--> DETAIL: Functions that use sharded tables cannot be run on one shard and see all rows. A function in it may take a row of a table.
--> HINT: Run its statements from the client, or name the shard: /* switchyard: shard=… */.

-- a table's type
SELECT casts()
--> Workspace (read)
-->   Reason: function "casts" uses the sharded table "profiles"

-- a view of views whose parts each shard has, with a join on the shard key
SELECT * FROM joined_view2
--> Workspace (read)
-->   Reason: view "joined_view2" reads the sharded table "orders"
-->   Fetch joined_view2 (code, name) from all shards

-- and with one that does not join what is on one shard
SELECT * FROM joined_view
--> Workspace (read)
-->   Reason: view "joined_view" reads the sharded table "orders"
-->   Fetch deep_view (code, name) from all shards
-->   Fetch users (id, email, name, age, created) from all shards
-->   View joined_view

-- one that no shard can read a part of by itself
SELECT * FROM total_view
--> Workspace (read)
-->   Reason: view "total_view" reads the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards
-->   View total_view

-- a row of a table's type is no row of the table
SELECT casts() FROM orders WHERE user_id IN (1, 2)
--> Workspace (read)
-->   Reason: function "casts" uses the sharded table "profiles"
-->   Fetch orders (user_id) from all shards

-- it would declare the cursor elsewhere
SELECT declares()
--> Refuse 0A000: function "declares" uses the sharded table "users"
--> DETAIL: Functions that use sharded tables cannot be run on one shard and see all rows.
--> HINT: Run its statements from the client, or name the shard: /* switchyard: shard=… */.

-- what a function returns is no row of a table
SELECT x FROM total_spent(4) x
--> Workspace (read)
-->   Reason: function "total_spent" uses the sharded table "orders"
-->   Fetch orders (id, user_id, total, status, country) from all shards

-- a text that is run as a query, if it is there to be looked at
SELECT * FROM ts_stat('SELECT name FROM users')
--> Workspace (read)
-->   Reason: function "ts_stat" is not supported across shards
-->   Fetch users (id, email, name, age, created) from all shards
-->   Guards: [0]

SELECT ts_rewrite('a', 'SELECT name, note FROM countries')
--> Workspace (read)
-->   Reason: function "ts_rewrite" is not supported across shards
-->   Fetch countries (code, name, currency) from any shard, or read in place
-->   Guards: [1]

SELECT ts_rewrite('a', 'b', 'c')
--> PassThrough to any shard (read)

SELECT * FROM ts_stat('SELECT name FROM public.users')
--> Refuse 0A000: function "ts_stat" is not supported across shards
--> DETAIL: The text it runs names a schema.

SELECT * FROM ts_stat('DELETE FROM users')
--> Refuse 0A000: function "ts_stat" is not supported across shards
--> DETAIL: It is no query.

SELECT ts_rewrite('a', status) FROM orders
--> Refuse 0A000: function "ts_rewrite" is not supported across shards
--> DETAIL: It reads tables that are named by its arguments.
