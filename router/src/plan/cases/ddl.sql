CREATE TABLE t (id int)
--> Broadcast to all shards (schema)

CREATE TABLE users (id int)
--> Broadcast to all shards (schema)

CREATE TABLE t (LIKE users INCLUDING ALL)
--> Broadcast to all shards (schema)

CREATE TABLE t PARTITION OF orders FOR VALUES IN (1)
--> Broadcast to all shards (schema)

CREATE UNLOGGED TABLE t (a int)
--> Broadcast to all shards (schema)

CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, user_id bigint REFERENCES users)
--> Broadcast to all shards (schema)

CREATE TABLE t AS SELECT * FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from all shards

CREATE TABLE t AS TABLE users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from all shards

CREATE TABLE t AS SELECT * FROM settings
--> Broadcast to all shards (schema)

CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM orders
--> Refuse 0A000: a materialized view of the sharded table "orders" is not supported
--> DETAIL: Each shard would refresh it with the rows that it has itself.
--> HINT: CREATE TABLE AS stores the rows of all shards.

CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM settings
--> Broadcast to all shards (schema)

REFRESH MATERIALIZED VIEW m
--> Broadcast to all shards (schema)

CREATE VIEW v AS SELECT * FROM users
--> Broadcast to all shards (schema)

CREATE OR REPLACE VIEW v AS SELECT * FROM users
--> Broadcast to all shards (schema)

CREATE INDEX ON users (name)
--> Broadcast to all shards (schema)

CREATE UNIQUE INDEX CONCURRENTLY i ON users (name)
--> Refuse 0A000: unique constraint "i" of table "users" cannot hold across shards
--> DETAIL: It does not contain the shard key "id", so that rows that exclude each other could be on different shards.
--> HINT: Let it contain "id" too, compared with =.

DROP INDEX CONCURRENTLY i
--> Broadcast to one shard after the other (no transaction)

DROP INDEX i
--> Broadcast to all shards (schema)

CREATE SEQUENCE s
--> Broadcast to all shards (schema)

CREATE SCHEMA x
--> Broadcast to all shards (schema)

CREATE EXTENSION pgcrypto
--> Broadcast to all shards (schema)

CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT count(*) FROM users'
--> Broadcast to all shards (schema)

CREATE TRIGGER t BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()
--> Broadcast to all shards (schema)

CREATE ROLE bob LOGIN PASSWORD 'x'
--> Broadcast to all shards (schema)

GRANT SELECT ON users TO bob
--> Broadcast to all shards (schema)

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bob
--> Broadcast to all shards (schema)

COMMENT ON TABLE users IS 'people'
--> Broadcast to all shards (schema)

SECURITY LABEL ON TABLE users IS 'x'
--> Broadcast to all shards (schema)

IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z
--> Broadcast to all shards (schema)

REASSIGN OWNED BY a TO b
--> Broadcast to all shards (schema)

DROP TABLE users
--> Broadcast to all shards (schema)

DROP TABLE IF EXISTS t CASCADE
--> Broadcast to all shards (schema)

ALTER TABLE users ADD COLUMN x int
--> Broadcast to all shards (schema)

ALTER TABLE users ADD COLUMN x int DEFAULT 5
--> Broadcast to all shards (schema)

ALTER TABLE users RENAME COLUMN name TO nom
--> Broadcast to all shards (schema)

ALTER TABLE users RENAME COLUMN id TO uid
--> Refuse 0A000: renaming the shard key of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users ALTER COLUMN id TYPE text
--> Refuse 0A000: changing the type of the shard key of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users ALTER COLUMN id SET DATA TYPE int4
--> Refuse 0A000: changing the type of the shard key of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users DROP COLUMN id
--> Refuse 0A000: dropping the shard key of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users DROP COLUMN name
--> Broadcast to all shards (schema)

ALTER TABLE users ALTER COLUMN id DROP DEFAULT
--> Broadcast to all shards (schema)

ALTER TABLE users ADD CONSTRAINT c CHECK (id > 0)
--> Broadcast to all shards (schema)

ALTER TABLE users DROP CONSTRAINT c
--> Broadcast to all shards (schema)

ALTER TABLE orders DETACH PARTITION orders_2024 CONCURRENTLY
--> Refuse 0A000: ALTER … CONCURRENTLY cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

ALTER TYPE mood ADD VALUE 'x'
--> Broadcast to all shards (schema)

ALTER SYSTEM SET work_mem = '1GB'
--> Refuse 0A000: ALTER SYSTEM cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

ALTER DATABASE shop SET work_mem = '1GB'
--> Broadcast to all shards (schema)

ALTER DATABASE shop SET TABLESPACE x
--> Refuse 0A000: ALTER DATABASE SET TABLESPACE cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

CREATE DATABASE x
--> Refuse 0A000: CREATE DATABASE cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

DROP DATABASE x
--> Refuse 0A000: DROP DATABASE cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

CREATE TABLESPACE x LOCATION '/x'
--> Refuse 0A000: CREATE TABLESPACE cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p
--> Refuse 0A000: CREATE SUBSCRIPTION cannot run on all shards together
--> DETAIL: PostgreSQL does not run it inside a transaction block.
--> HINT: Run it on one shard after the other: /* switchyard: shard=… */.

CREATE PUBLICATION p FOR ALL TABLES
--> Broadcast to all shards (schema)

TRUNCATE users
--> Broadcast to all shards (schema)

TRUNCATE users, orders RESTART IDENTITY CASCADE
--> Broadcast to all shards (schema)

TRUNCATE settings
--> PassThrough to shard s0 (primary)

-- temporary
CREATE TEMP TABLE t (id int)
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT * FROM settings
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMP TABLE t AS SELECT * FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from all shards
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMP TABLE t (LIKE users)
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

CREATE LOCAL TEMP TABLE t (id int) ON COMMIT DROP
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMP VIEW v AS SELECT * FROM users
--> Refuse 0A000: a temporary view of the sharded table "users" is not supported yet
--> DETAIL: It would read the rows of one shard.
--> HINT: CREATE VIEW makes one for every session.

CREATE OR REPLACE TEMP VIEW v AS SELECT * FROM settings
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: v

CREATE TEMP SEQUENCE s
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: s

CREATE TABLE pg_temp.t (id int)
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

SELECT * INTO TEMP t FROM settings
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

SELECT * INTO TEMP t FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from all shards
-->   Pins: Temporary
-->   Creates temporary: t

SELECT * INTO TEMP t FROM users WHERE id = 5
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from the shard of users = integer[0]
-->     Only: id = 5
-->   Pins: Temporary
-->   Creates temporary: t

SELECT * INTO t FROM settings
--> Broadcast to all shards (schema)

-- renaming and attaching
ALTER TABLE users RENAME TO people
--> Refuse 0A000: renaming of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users SET SCHEMA audit
--> Refuse 0A000: moving to another schema of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users RENAME CONSTRAINT a TO b
--> Broadcast to all shards (schema)

ALTER TABLE orders ATTACH PARTITION settings FOR VALUES IN (1)
--> Refuse 0A000: attaching and detaching partitions and children of the sharded table "orders" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make partitions by CREATE TABLE … PARTITION OF, and remove them by DROP TABLE.

ALTER TABLE orders DETACH PARTITION orders_2024
--> Refuse 0A000: attaching and detaching partitions and children of the sharded table "orders" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make partitions by CREATE TABLE … PARTITION OF, and remove them by DROP TABLE.

ALTER TABLE orders_2024 NO INHERIT orders
--> Refuse 0A000: attaching and detaching partitions and children of the sharded table "orders_2024" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make partitions by CREATE TABLE … PARTITION OF, and remove them by DROP TABLE.

ALTER TABLE settings INHERIT users
--> Refuse 0A000: table "settings" cannot become part of a sharded table
--> DETAIL: Its rows are on the first shard only.

ALTER TABLE settings RENAME TO profiles
--> Refuse 0A000: table "settings" cannot become part of a sharded table
--> DETAIL: Its rows are on the first shard only.

ALTER TABLE settings RENAME TO options
--> Broadcast to all shards (schema)

ALTER TABLE users ADD COLUMN a int, ALTER COLUMN name TYPE varchar(10), DROP COLUMN age
--> Broadcast to all shards (schema)

ALTER TABLE users ADD COLUMN a int, ALTER COLUMN id TYPE int4
--> Refuse 0A000: changing the type of the shard key of the sharded table "users" is not supported
--> DETAIL: Rows would be where they are not looked for.
--> HINT: Make another table as it is to be, and INSERT the rows of this one.

ALTER TABLE users ADD COLUMN n serial
--> Refuse 0A000: adding a column with a sequence of the sharded table "users" is not supported
--> DETAIL: Each shard would number the rows that it has by itself.
--> HINT: Make another table with the column, and INSERT the rows of this one.

ALTER TABLE users ALTER id DROP NOT NULL
--> Broadcast to all shards (schema)

CREATE TABLE orders AS SELECT * FROM settings
--> Refuse 0A000: table "orders" cannot be created with rows: its rows have places of their own
--> HINT: Create the table first, then INSERT the rows.

CREATE TABLE t AS EXECUTE p
--> Refuse 0A000: CREATE TABLE AS EXECUTE is not supported
--> DETAIL: What has been prepared is the session's own, and no shard knows it by its name.
--> HINT: Write the query itself behind AS.

CREATE TABLE t (a int) AS SELECT 1
--> Broadcast to all shards (schema)

CREATE TABLE t (a text DEFAULT 'as select')
--> Broadcast to all shards (schema)

-- rows of sharded tables, stored
CREATE TABLE t AS SELECT count(*) FROM orders WITH NO DATA
--> Broadcast to all shards (schema)

CREATE TABLE orders AS SELECT * FROM users WITH NO DATA
--> Broadcast to all shards (schema)

CREATE TABLE orders AS SELECT * FROM users
--> Refuse 0A000: table "orders" cannot be created with rows: its rows have places of their own
--> HINT: Create the table first, then INSERT the rows.

CREATE UNLOGGED TABLE IF NOT EXISTS s.t (a, b) WITH (fillfactor = 70) AS SELECT id, name FROM users WHERE id = 5
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, name) from the shard of users = integer[1]
-->     Only: id = 5

CREATE TABLE t AS SELECT id FROM users FOR UPDATE
--> Refuse 0A000: storing rows of the sharded table "users" by this query is not supported
--> DETAIL: It does more than read, and cannot be run apart from the shards.
--> HINT: Create the table with its columns first; COPY (query) TO STDOUT and COPY table FROM STDIN bring the rows.

CREATE TABLE t AS SELECT nextval('s'), id FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id) from all shards
-->   May use a sequence
-->   Guards: [0]

CREATE TABLE t AS WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone
--> Refuse 0A000: storing rows of the sharded table "orders" by this query is not supported
--> DETAIL: It does more than read, and cannot be run apart from the shards.
--> HINT: Create the table with its columns first; COPY (query) TO STDOUT and COPY table FROM STDIN bring the rows.

CREATE TABLE t AS SELECT * FROM nobody_knows
--> Broadcast to all shards (schema)
-->   Unknown: nobody_knows

CREATE TEMP TABLE t AS SELECT * FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from all shards
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMP TABLE t AS SELECT * FROM users WITH NO DATA
--> PassThrough to shard s0 (primary)
-->   Pins: Temporary
-->   Creates temporary: t

CREATE TEMP TABLE t AS EXECUTE p
--> Refuse 0A000: CREATE TABLE AS EXECUTE is not supported
--> DETAIL: What has been prepared is the session's own, and no shard knows it by its name.
--> HINT: Write the query itself behind AS.

CREATE TABLE t AS EXECUTE p (1)
--> Refuse 0A000: CREATE TABLE AS EXECUTE is not supported
--> DETAIL: What has been prepared is the session's own, and no shard knows it by its name.
--> HINT: Write the query itself behind AS.

SELECT id, name INTO t FROM users
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, name) from all shards

SELECT id INTO s.t FROM users ORDER BY id LIMIT 5
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id) from all shards

SELECT 1 AS a INTO s.t
--> Broadcast to all shards (schema)

WITH u AS (SELECT * FROM users) SELECT * INTO UNLOGGED TABLE t FROM u WHERE id > 5
--> Workspace (primary)
-->   Reason: rows of sharded tables are stored in one place
-->   Fetch users (id, email, name, age, created) from the shards of users > integer[0]

SELECT * INTO orders FROM users
--> Refuse 0A000: table "orders" cannot be created with rows: its rows have places of their own
--> HINT: Create the table first, then INSERT the rows.

CREATE MATERIALIZED VIEW IF NOT EXISTS s.m AS SELECT * FROM users WITH NO DATA
--> Refuse 0A000: a materialized view of the sharded table "users" is not supported
--> DETAIL: Each shard would refresh it with the rows that it has itself.
--> HINT: CREATE TABLE AS stores the rows of all shards.

CREATE TABLE db.s.t AS SELECT * FROM users
--> Refuse 0A000: storing rows of the sharded table "users" in a table of this name is not supported
--> HINT: Give it a plain name, with no more than a schema before it.

CREATE TABLE U&"t" AS SELECT * FROM users
--> Refuse 0A000: storing rows of the sharded table "U&"…"" in a table of this name is not supported
--> HINT: Give it a plain name, with no more than a schema before it.

SELECT * INTO db.s.t FROM users
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "users" (SELECT INTO a qualified name). It may do more than read (INTO).
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

-- values for rows that are there
ALTER TABLE users ADD COLUMN seen timestamptz DEFAULT now()
--> Refuse 0A000: this change of the sharded table "users" is not supported: it computes "now" for the rows that are there
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Add a column without a default, UPDATE it, and set the default by ALTER COLUMN … SET DEFAULT then.

ALTER TABLE users ADD COLUMN token uuid DEFAULT gen_random_uuid(), ADD COLUMN plain int DEFAULT 5
--> Broadcast to all shards (schema)

ALTER TABLE users ADD COLUMN setting text DEFAULT of_setting()
--> Refuse 0A000: this change of the sharded table "users" is not supported: it computes "of_setting" for the rows that are there
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Add a column without a default, UPDATE it, and set the default by ALTER COLUMN … SET DEFAULT then.

ALTER TABLE users ALTER COLUMN name TYPE text USING of_setting()
--> Refuse 0A000: this change of the sharded table "users" is not supported: it computes "of_setting" for the rows that are there
--> DETAIL: Each shard would compute a result of its own.
--> HINT: Add a column without a default, UPDATE it, and set the default by ALTER COLUMN … SET DEFAULT then.

ALTER TABLE users ALTER COLUMN age TYPE int8 USING abs(age)
--> Broadcast to all shards (schema)

ALTER TABLE users ALTER COLUMN created SET DEFAULT now()
--> Broadcast to all shards (schema)
