SELECT * FROM countries WHERE code = 'kr'
--> PassThrough to any shard (read)

SELECT count(*) FROM countries
--> PassThrough to any shard (read)

SELECT * FROM countries FOR UPDATE
--> PassThrough to shard s0 (locking read: primary)

SELECT random(), * FROM countries
--> PassThrough to any shard (read: primary)

SELECT * FROM country_names
--> PassThrough to any shard (read)

SELECT * FROM dice
--> PassThrough to shard s0 (primary)

SELECT * FROM countries JOIN settings ON key = code
--> PassThrough to shard s0 (read)

INSERT INTO countries VALUES ('kr', 'Korea', 'KRW')
--> Broadcast to all shards (reference table)

INSERT INTO countries (code, name) VALUES ($1, upper($2)) ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING *
--> Broadcast to all shards (reference table)

UPDATE countries SET name = 'x' WHERE code = 'kr'
--> Broadcast to all shards (reference table)

DELETE FROM countries
--> Broadcast to all shards (reference table)

DELETE FROM countries c USING rates r WHERE r.code = c.code
--> Broadcast to all shards (reference table)

INSERT INTO countries SELECT * FROM countries WHERE code = 'x'
--> Broadcast to all shards (reference table)

INSERT INTO countries SELECT code FROM countries LIMIT 1
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch countries (code) from any shard, or read in place

INSERT INTO countries SELECT code, row_number() OVER ()::text FROM countries
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch countries (code) from any shard, or read in place

INSERT INTO countries SELECT 'all', string_agg(name, ',') FROM countries
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch countries (name) from any shard, or read in place

INSERT INTO countries SELECT 'n', count(*)::text FROM countries
--> Broadcast to all shards (reference table)

MERGE INTO countries c USING rates r ON r.code = c.code WHEN NOT MATCHED THEN INSERT (code) VALUES (r.code)
--> Broadcast to all shards (reference table)

-- what would differ from shard to shard
INSERT INTO rates (code, rate) VALUES ('kr', 1)
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Guards: [0]

INSERT INTO rates (code, rate, updated) VALUES ('kr', 1, $1)
--> Broadcast to all shards (reference table)
-->   Guards: [0]

INSERT INTO rates VALUES ('kr', 1, DEFAULT)
--> Refuse 0A000: this write of the reference table "rates" is not supported
--> DETAIL: Each shard would compute a value of its own: the default of column "updated".
--> HINT: Compute the value first and pass it as a parameter.

UPDATE rates SET updated = DEFAULT
--> Write on all shards (primary)
-->   Copies of a reference table
-->   The time is given

INSERT INTO rates VALUES ('kr', 1, now())
--> Write on all shards (primary)
-->   Copies of a reference table
-->   The time is given
-->   Guards: [0]

UPDATE rates SET updated = current_timestamp
--> Write on all shards (primary)
-->   Copies of a reference table
-->   The time is given

UPDATE rates SET rate = random()
--> Refuse 0A000: this write of the reference table "rates" is not supported
--> DETAIL: Each shard would compute a value of its own: random.
--> HINT: Compute the value first and pass it as a parameter.

INSERT INTO tags (label) VALUES ('x')
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   May use a sequence

INSERT INTO tags (id, label) VALUES (1, 'x')
--> Broadcast to all shards (reference table)

UPDATE countries SET name = steady()
--> Refuse 0A000: this write of the reference table "countries" is not supported
--> DETAIL: Each shard would compute a value of its own: steady.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE countries SET name = pure(1)::text
--> Broadcast to all shards (reference table)

UPDATE countries SET name = no_such_function()
--> Refuse 0A000: this write of the reference table "countries" is not supported
--> DETAIL: Each shard would compute a value of its own: no_such_function.
--> HINT: Compute the value first and pass it as a parameter.

DELETE FROM countries WHERE ctid = '(0,1)'
--> Refuse 0A000: this write of the reference table "countries" is not supported
--> DETAIL: Each shard would compute a value of its own: ctid.
--> HINT: Compute the value first and pass it as a parameter.

-- with other tables
UPDATE countries SET name = u.name FROM users u WHERE u.id = 5
--> Refuse 0A000: this write of the reference table "countries" is not supported
--> DETAIL: It also uses the sharded table "users", and each shard would see other rows of it.

INSERT INTO countries SELECT name FROM users
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (name) from all shards

DELETE FROM countries WHERE code IN (SELECT key FROM settings)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

UPDATE countries SET name = (SELECT value FROM settings LIMIT 1)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

UPDATE country_names SET name = 'x'
--> Refuse 0A000: writing through the view "country_names" is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the reference table itself.

INSERT INTO countries SELECT relname FROM pg_class
--> Insert of a query's rows, all of them on every shard
-->   The query is computed first, in the transaction
--> Workspace (primary)
-->   Reason: its rows are stored on other shards

COPY countries TO STDOUT
--> PassThrough to any shard (read)

COPY countries FROM STDIN
--> Copy of all rows to all shards

TRUNCATE countries
--> Broadcast to all shards (schema)

SELECT add_country()
--> Refuse 0A000: function "add_country" may write the reference table "countries"
--> DETAIL: It would change the copy of one shard only.

SELECT note_it()
--> PassThrough to shard s0 (primary)
-->   Leaves the backend dirty
-->   May use a sequence

SELECT note_it() FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0], first shard only (primary)
-->   Shards: s0
-->   Leaves the backend dirty
-->   May use a sequence

SELECT note_it() FROM users WHERE id = 1
--> PassThrough to the shard of users = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   Leaves the backend dirty
-->   May use a sequence

CREATE TABLE x AS SELECT * FROM countries
--> Broadcast to all shards (schema)

ALTER TABLE countries ADD COLUMN population int8
--> Broadcast to all shards (schema)

ALTER TABLE countries ADD COLUMN added timestamptz DEFAULT now()
--> Refuse 0A000: this change of the reference table "countries" is not supported
--> DETAIL: Each shard would compute values of its own: now.

ALTER TABLE countries ADD COLUMN id serial
--> Refuse 0A000: this change of the reference table "countries" is not supported
--> DETAIL: Each shard would compute values of its own: serial.

-- orders that copies have of their own
DELETE FROM ranks WHERE id IN (SELECT DISTINCT ON (grp) id FROM ranks)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

DELETE FROM ranks WHERE id = (SELECT id FROM ranks OFFSET 2 LIMIT 1)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

DELETE FROM ranks WHERE id = (SELECT id FROM ranks ORDER BY grp DESC, id LIMIT 1)
--> Broadcast to all shards (reference table)

DELETE FROM ranks WHERE id = (SELECT -id AS id FROM ranks ORDER BY id LIMIT 1)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

DELETE FROM ranks USING (SELECT id FROM ranks FETCH FIRST ROW ONLY) x WHERE x.id = ranks.id
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

WITH x AS (SELECT id FROM ranks LIMIT 1) DELETE FROM ranks USING x WHERE x.id = ranks.id
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

MERGE INTO ranks USING (SELECT id FROM ranks LIMIT 1) x ON ranks.id = x.id WHEN MATCHED THEN DELETE
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

INSERT INTO ranks (id, v) VALUES (100, (SELECT v FROM ranks LIMIT 1))
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch ranks (v) from any shard, or read in place

INSERT INTO ranks SELECT id + 5, v FROM ranks ORDER BY id LIMIT 1
--> Broadcast to all shards (reference table)

UPDATE ranks SET v = (SELECT ARRAY(SELECT id FROM ranks)::text)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

DELETE FROM ranks WHERE id = ANY (ARRAY(SELECT id FROM ranks WHERE grp = 1))
--> Broadcast to all shards (reference table)

DELETE FROM ranks WHERE id = ANY (ARRAY(SELECT id FROM ranks LIMIT 2))
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

UPDATE ranks SET v = (SELECT id::text FROM ranks TABLESAMPLE SYSTEM (50) ORDER BY id LIMIT 1)
--> Write on all shards (primary)
-->   Copies of a reference table
-->   Given: the rows of a query that are computed first

-- rows that match
UPDATE ranks SET v = x.v FROM ranks x WHERE x.id <> ranks.id
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: a FROM of which several rows may match one.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET v = x.v FROM ranks x WHERE x.grp = ranks.id
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: a FROM of which several rows may match one.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET v = x.v FROM ranks x WHERE x.id = ranks.grp AND x.v <> 'x'
--> Broadcast to all shards (reference table)
-->   Guards: [0]

UPDATE ranks SET v = x.v FROM (VALUES (1, 'a'), (2, 'b')) x (id, v) WHERE x.id = ranks.id
--> Broadcast to all shards (reference table)
-->   Guards: [1, 3]

-- the time in strings
UPDATE ranks SET v = 'now'::timestamptz
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: 'now'.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET v = timestamp 'today'
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: 'today'.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET v = cast('now' AS text)::timestamptz
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: 'now'.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET at = 'NOW '
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: 'NOW'.
--> HINT: Compute the value first and pass it as a parameter.

INSERT INTO ranks VALUES (1, 'x', 'yesterday')
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Guards: [1, 2]

UPDATE ranks SET at = '2026-01-01'
--> Broadcast to all shards (reference table)
-->   Guards: [0]

UPDATE countries SET name = 'now'
--> Broadcast to all shards (reference table)

-- settings
UPDATE ranks SET v = current_setting('port')
--> Refuse 0A000: this write of the reference table "ranks" is not supported
--> DETAIL: Each shard would compute a value of its own: current_setting.
--> HINT: Compute the value first and pass it as a parameter.

UPDATE ranks SET v = current_setting('app.user')
--> Broadcast to all shards (reference table)
-->   Guards: [0]
