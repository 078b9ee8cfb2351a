BEGIN
--> Session: Begin(TransactionModes { isolation: None, read_only: None, deferrable: None })

BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE
--> Session: Begin(TransactionModes { isolation: Some(Serializable), read_only: Some(true), deferrable: Some(true) })

START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE, NOT DEFERRABLE
--> Session: Begin(TransactionModes { isolation: Some(RepeatableRead), read_only: Some(false), deferrable: Some(false) })

begin work
--> Session: Begin(TransactionModes { isolation: None, read_only: None, deferrable: None })

COMMIT
--> Session: Commit { chain: false }

END TRANSACTION AND NO CHAIN
--> Session: Commit { chain: false }

COMMIT AND CHAIN
--> Session: Commit { chain: true }

ROLLBACK
--> Session: Rollback { chain: false }

ABORT WORK
--> Session: Rollback { chain: false }

ROLLBACK AND CHAIN
--> Session: Rollback { chain: true }

SAVEPOINT "A b"
--> Session: Savepoint("A b")

RELEASE a
--> Session: Release("a")

RELEASE SAVEPOINT a
--> Session: Release("a")

ROLLBACK TO a
--> Session: RollbackTo("a")

ROLLBACK TRANSACTION TO SAVEPOINT a
--> Session: RollbackTo("a")

PREPARE TRANSACTION 'x'
--> Session: PrepareTransaction("x")

COMMIT PREPARED 'x'
--> Session: EndPrepared { name: "x", commit: true }

ROLLBACK PREPARED 'x'
--> Session: EndPrepared { name: "x", commit: false }

PREPARE TRANSACTION 'switchyard.x'
--> Refuse 42939: transaction identifier "switchyard.x" is reserved
--> DETAIL: The router gives names that begin with "switchyard." to parts of transactions on several shards, and ends them itself.

PREPARE TRANSACTION E'x'
--> Refuse 0A000: a transaction identifier with escapes is not supported
--> HINT: Write it as a plain string.

BEGIN NONSENSE
--> Refuse 0A000: this form of the statement is not supported
--> HINT: Write names and constants plainly, without escapes.

SET work_mem = '64MB'
--> Session: Set { name: "work_mem", value: Some(SetValue { items: ["64MB"] }), local: false }

SET LOCAL search_path TO a, "B c", 'd'
--> Session: Set { name: "search_path", value: Some(SetValue { items: ["a", "B c", "d"] }), local: true }

SET SESSION timezone TO DEFAULT
--> Session: Set { name: "timezone", value: None, local: false }

SET TIME ZONE 'UTC'
--> Session: Set { name: "timezone", value: Some(SetValue { items: ["UTC"] }), local: false }

SET TIME ZONE -7
--> Session: Set { name: "timezone", value: Some(SetValue { items: ["-7"] }), local: false }

SET TIME ZONE LOCAL
--> Session: Set { name: "timezone", value: None, local: false }

SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE
--> Session: Set { name: "timezone", value: Some(SetValue { items: [] }), local: false }

SET NAMES 'UTF8'
--> Session: Set { name: "client_encoding", value: Some(SetValue { items: ["UTF8"] }), local: false }

SET client_encoding TO 'SJIS'
--> Refuse 0A000: client encoding "sjis" is not supported
--> DETAIL: The router finds the shard of a text by the bytes that the servers store.
--> HINT: Use UTF8.

SET standard_conforming_strings = off
--> Refuse 0A000: standard_conforming_strings cannot be turned off
--> HINT: Write string constants with escapes as E'…'.

SET standard_conforming_strings = on
--> Session: Set { name: "standard_conforming_strings", value: Some(SetValue { items: ["on"] }), local: false }

SET ROLE bob
--> Session: Set { name: "role", value: Some(SetValue { items: ["bob"] }), local: false }

SET ROLE NONE
--> Session: Set { name: "role", value: Some(SetValue { items: ["none"] }), local: false }

SET role = bob
--> Session: Set { name: "role", value: Some(SetValue { items: ["bob"] }), local: false }

SET LOCAL ROLE 'bob'
--> Session: Set { name: "role", value: Some(SetValue { items: ["bob"] }), local: true }

SET SESSION AUTHORIZATION bob
--> Session: Set { name: "session_authorization", value: Some(SetValue { items: ["bob"] }), local: false }

SET SCHEMA 'x'
--> Session: Set { name: "search_path", value: Some(SetValue { items: ["x"] }), local: false }

SET switchyard.route = 'primary'
--> Session: Set { name: "switchyard.route", value: Some(SetValue { items: ["primary"] }), local: false }

SET TRANSACTION READ ONLY
--> Session: SetTransaction(TransactionModes { isolation: None, read_only: Some(true), deferrable: None })

SET TRANSACTION SNAPSHOT '000'
--> Refuse 0A000: importing a snapshot is not supported across shards

SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE
--> Session: SetSessionCharacteristics(TransactionModes { isolation: Some(Serializable), read_only: None, deferrable: None })

SET CONSTRAINTS ALL DEFERRED
--> Session: SetConstraints

SET a.b.c = 1.5
--> Session: Set { name: "a.b.c", value: Some(SetValue { items: ["1.5"] }), local: false }

SET x
--> Refuse 0A000: this form of the statement is not supported
--> HINT: Write names and constants plainly, without escapes.

RESET ALL
--> Session: Reset(None)

RESET work_mem
--> Session: Reset(Some("work_mem"))

RESET TIME ZONE
--> Session: Reset(Some("timezone"))

RESET SESSION AUTHORIZATION
--> Session: Reset(Some("session_authorization"))

SHOW ALL
--> PassThrough to any shard (read: primary)

SHOW search_path
--> PassThrough to any shard (read: primary)

SHOW TRANSACTION ISOLATION LEVEL
--> PassThrough to any shard (read: primary)

SHOW TIME ZONE
--> PassThrough to any shard (read: primary)

DISCARD ALL
--> Session: Discard(All)

DISCARD TEMP
--> Session: Discard(Temp)

DISCARD PLANS
--> Session: Discard(Plans)

DISCARD SEQUENCES
--> Session: Discard(Sequences)

DEALLOCATE ALL
--> Session: Deallocate(None)

DEALLOCATE PREPARE p
--> Session: Deallocate(Some("p"))

PREPARE p AS SELECT * FROM users WHERE id = $1
--> Session: Prepare { name: "p", types: [], statement: 13..46 }

PREPARE p (int8, varchar(10)) AS INSERT INTO users VALUES ($1, $2)
--> Session: Prepare { name: "p", types: [11..15, 17..28], statement: 33..66 }

EXECUTE p
--> Session: Execute { name: "p", arguments: [] }

EXECUTE p (1, 'a, b', f(2, 3))
--> Session: Execute { name: "p", arguments: [11..12, 14..20, 22..29] }

DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT * FROM settings
--> PassThrough to shard s0 (read)
-->   Pins: HoldCursor

DECLARE c CURSOR FOR SELECT * FROM users
--> Workspace (read)
-->   Reason: rows of several shards are wanted in one place
-->   Fetch users (id, email, name, age, created) from all shards

DECLARE c BINARY INSENSITIVE SCROLL CURSOR WITHOUT HOLD FOR SELECT * FROM countries
--> PassThrough to any shard (read)

DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT country, count(*) FROM orders GROUP BY country
--> Workspace (read)
-->   Reason: rows of several shards are wanted in one place
-->   Fetch orders (country) from all shards

DECLARE c CURSOR FOR SELECT a.id FROM users a, users b WHERE a.id = 1 AND b.id = $1
--> PassThrough to the shard of users = integer[0], users = $1 (read)

DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id FOR UPDATE
--> Session: Declare { name: "c", hold: false }

FETCH 10 FROM c
--> Session: Fetch { name: "c" }

FETCH ALL IN c
--> Session: Fetch { name: "c" }

FETCH NEXT c
--> Session: Fetch { name: "c" }

MOVE FORWARD 5 FROM c
--> Session: Fetch { name: "c" }

CLOSE c
--> Session: CloseCursor(Some("c"))

CLOSE ALL
--> Session: CloseCursor(None)

LISTEN chan
--> Session: Listen("chan")

UNLISTEN *
--> Session: Unlisten(None)

UNLISTEN chan
--> Session: Unlisten(Some("chan"))

NOTIFY chan, 'payload'
--> PassThrough to shard s0 (primary)

LOCK TABLE users IN EXCLUSIVE MODE
--> Broadcast to all shards (schema)

LOCK settings
--> PassThrough to shard s0 (locking read: primary)

LOCK countries
--> Broadcast to all shards (schema)

EXPLAIN SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

EXPLAIN ANALYZE DELETE FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM users WHERE id = $1
--> PassThrough to the shard of users = $1 (read)

EXPLAIN (ANALYZE OFF) UPDATE users SET name = 'x' WHERE id = 5
--> PassThrough to the shard of users = integer[1] (primary)
-->   Shards: s0

EXPLAIN (SELECT 1)
--> PassThrough to any shard (read)

EXPLAIN VERBOSE SELECT * FROM users
--> Append of all shards (read)

EXPLAIN SELECT count(*) FROM users
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM users

EXPLAIN ANALYZE INSERT INTO countries VALUES ('x')
--> Refuse 0A000: EXPLAIN ANALYZE of a statement that changes all shards is not supported
--> HINT: Leave out ANALYZE.

EXPLAIN (ANALYZE, FORMAT text) SELECT a.id FROM users a, users b WHERE a.id = 1 AND b.id = $1
--> PassThrough to the shard of users = integer[0], users = $1 (read)

EXPLAIN EXECUTE p (1)
--> Refuse 0A000: EXPLAIN EXECUTE is not supported yet

EXPLAIN INSERT INTO countries VALUES ('x')
--> PassThrough to shard s0 (primary)

COPY settings FROM STDIN
--> PassThrough to shard s0 (primary)
-->   May use a sequence

COPY settings (key, value) TO STDOUT WITH (FORMAT csv)
--> PassThrough to shard s0 (read)

COPY settings TO '/tmp/x'
--> PassThrough to shard s0 (read)

COPY settings FROM PROGRAM 'cat'
--> PassThrough to shard s0 (primary)
-->   May use a sequence

COPY users FROM STDIN
--> Copy of rows of text by field 1, bigint

COPY users (id, name) TO STDOUT
--> Append of all shards (read)

COPY (SELECT * FROM users WHERE id = 5) TO STDOUT
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

COPY (SELECT * FROM users) TO STDOUT
--> Append of all shards (read)

COPY (SELECT * FROM settings) TO STDOUT (FORMAT binary)
--> PassThrough to shard s0 (read)

COPY (DELETE FROM users WHERE id = 5 RETURNING *) TO STDOUT
--> PassThrough to the shard of users = integer[0] (primary)
-->   Shards: s0

COPY (SELECT count(*) FROM users WHERE age > 3) TO STDOUT (FORMAT csv)
--> Workspace (read)
-->   Reason: rows of several shards are wanted in one place
-->   Fetch users (id) from all shards
-->     Only: age > 3

COPY (SELECT count(*) FROM users) TO '/tmp/x'
--> Refuse 0A000: COPY of rows of several shards to a file or program of a server is not supported
--> HINT: Copy TO STDOUT, or restrict the shard key so that one shard has all the rows.

COPY users TO PROGRAM 'cat'
--> Refuse 0A000: COPY of rows of several shards to a file or program of a server is not supported
--> HINT: Copy TO STDOUT, or restrict the shard key so that one shard has all the rows.

COPY order_view TO STDOUT
--> PassThrough to any shard (read)

COPY nowhere FROM STDIN
--> PassThrough to shard s0 (primary)
-->   May use a sequence
-->   Unknown: nowhere

COPY pg_class TO STDOUT
--> PassThrough to shard s0 (read)

CALL do_orders()
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "orders" (code).
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

CALL do_nothing()
--> PassThrough to shard s0 (primary)
-->   Leaves the backend dirty
-->   May use a sequence

DO $$ BEGIN DELETE FROM users; END $$
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may touch the sharded table "users" (code).
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

DO $$ BEGIN PERFORM 1; END $$
--> PassThrough to shard s0 (primary)
-->   Leaves the backend dirty
-->   May use a sequence

DO $$ BEGIN EXECUTE 'DELETE FROM us' || 'ers'; END $$
--> Refuse 0A000: the code runs SQL that the router cannot see
--> DETAIL: What "EXECUTE" runs may touch sharded tables.
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

DO $$ BEGIN INSERT INTO countries VALUES ('x'); END $$
--> Refuse 0A000: this statement is not understood well enough to be sent to the right shards
--> DETAIL: It may write the reference table "countries", which every shard has (code).
--> HINT: Name the shard it is for: /* switchyard: shard=… */.

DO $$ BEGIN UPDATE settings SET value = 'x'; END $$
--> PassThrough to shard s0 (primary)
-->   Leaves the backend dirty
-->   May use a sequence

LOAD 'auto_explain'
--> Refuse 0A000: LOAD is not supported
--> HINT: Set session_preload_libraries on the servers.

CHECKPOINT
--> Broadcast to all shards (schema)

VACUUM
--> Broadcast to one shard after the other (no transaction)

VACUUM users
--> Broadcast to one shard after the other (no transaction)

ANALYZE
--> Broadcast to all shards (schema)

ANALYZE users
--> Broadcast to all shards (schema)

CLUSTER
--> Broadcast to one shard after the other (no transaction)

CLUSTER users USING users_pkey
--> Broadcast to all shards (schema)

REINDEX TABLE users
--> Broadcast to all shards (schema)

REINDEX TABLE CONCURRENTLY users
--> Broadcast to one shard after the other (no transaction)

REINDEX DATABASE shop
--> Broadcast to one shard after the other (no transaction)

-- no statement at all
;
--> Session: Empty

SELEC * FROM users
--> PassThrough to any shard (read)

FOO BAR
--> PassThrough to any shard (read)

SELECT * FROM users WHERE
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards

SELECT FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT 'unterminated
--> PassThrough to any shard (read)

SELECT $$unterminated
--> PassThrough to any shard (read)

SELECT 1a
--> PassThrough to any shard (read)

1
--> PassThrough to any shard (read)

SET client_encoding = 'LATIN1'
--> Refuse 0A000: client encoding "latin1" is not supported
--> DETAIL: The router finds the shard of a text by the bytes that the servers store.
--> HINT: Use UTF8.

SET client_encoding = 'utf-8'
--> Session: Set { name: "client_encoding", value: Some(SetValue { items: ["utf-8"] }), local: false }

SET NAMES SQL_ASCII
--> Session: Set { name: "client_encoding", value: Some(SetValue { items: ["sql_ascii"] }), local: false }

-- PostgreSQL would run the function at FETCH
DECLARE c CURSOR FOR SELECT spends_most()
--> Refuse 0A000: a cursor whose functions see later changes is not supported over rows of several shards
--> DETAIL: A volatile function in it reads tables.
--> HINT: Declare the function STABLE, if it may see the rows of the cursor's own time.
