-- Views that show rows of one table as they are.
SELECT * FROM adults WHERE uid = 5
--> PassThrough to the shard of adults = integer[0] (read)
-->   Shards: s0

SELECT label FROM seniors WHERE who = $1
--> PassThrough to the shard of seniors = $1 (read)

SELECT count(*) FROM adults
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM adults

SELECT a.label, o.total FROM adults a JOIN orders o ON o.user_id = a.uid
--> Append of all shards (read)

SELECT * FROM nameless
--> Workspace (read)
-->   Reason: view "nameless" reads the sharded table "users"
-->   Fetch nameless (age) from all shards

SELECT * FROM recent WHERE id = 5
--> Workspace (read)
-->   Reason: view "recent" reads the sharded table "users"
-->   Fetch users (id, email, name, age, created) from all shards
-->   View recent

SELECT * FROM tenant_users WHERE id = 5
--> PassThrough to the shard of tenant_users = integer[0] (read)
-->   Shards: s0

SELECT * FROM tenant_users
--> Workspace (read)
-->   Reason: view "tenant_users" is not supported across shards yet
-->   Bind join, if few: tenant_users
-->   Fetch tenant_users (id, name) from all shards

INSERT INTO adults (uid, label, years) VALUES (1, 'a', 20)
--> PassThrough to the shard of adults stored = integer[0] (primary)
-->   Shards: s1

INSERT INTO adults (uid, label, years) VALUES (1, 'a', 20), (2, 'b', 30), (3, 'c', 40)
--> PassThrough to the shards of adults stored in (integer[0], integer[3], integer[6]) (primary)
-->   Refuse the default of column "created" is not supported across shards

INSERT INTO seniors VALUES (70, 1), (71, 2) RETURNING *
--> PassThrough to the shards of seniors stored in (integer[1], integer[3]) (primary)
-->   Shards: s1

INSERT INTO adults (label) VALUES ('x')
--> PassThrough to the shard of adults stored = null (primary)
-->   Shards: s0

-- created is not shown and has now() for its default
INSERT INTO adults (uid, label, years) SELECT id, bio, 20 FROM jobs JOIN profiles ON user_id = id + 1
--> Refuse 0A000: the default of column "created" is not supported across shards
--> DETAIL: Each shard would compute a value of its own. The view does not show column "created", whose default each shard would compute by itself.
--> HINT: Compute the value first and pass it as a parameter.

INSERT INTO tenant_users (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = excluded.name
--> PassThrough to the shard of tenant_users stored = integer[0] (primary)
-->   Shards: s1

INSERT INTO adults (uid, label, years) VALUES (1, 'x', 20) ON CONFLICT (label) DO NOTHING
--> Refuse 0A000: ON CONFLICT without the shard key "uid" is not supported
--> DETAIL: A conflicting row of table "adults" may be on another shard.
--> HINT: Make the shard key part of the unique index and of the conflict target.

UPDATE adults SET label = 'x' WHERE uid = 7
--> PassThrough to the shard of adults = integer[1] (primary)
-->   Shards: s0

UPDATE adults SET label = 'x' WHERE years > 30 RETURNING uid
--> Write on all shards (primary)

UPDATE adults SET uid = 8 WHERE uid = 7
--> PassThrough to the shard of adults = integer[1], adults stored = integer[0] (primary)
-->   Refuse changing the shard key "uid" of table "adults" is not supported

UPDATE adults SET uid = uid + 1
--> Refuse 0A000: changing the shard key "uid" of table "adults" is not supported
--> DETAIL: The row would have to move to another shard, where one server would update it. A view does not say where a row lies.
--> HINT: Delete the row and insert it with the new key.

UPDATE seniors s SET years = 70 FROM orders o WHERE o.user_id = s.who
--> Write on all shards (primary)

UPDATE adults SET years = 1 WHERE uid IN (SELECT max(id) FROM users)
--> Write on all shards (primary)
-->   Given: the rows of a query that are computed first

DELETE FROM seniors WHERE who = $1
--> PassThrough to the shard of seniors = $1 (primary)

DELETE FROM adults
--> Write on all shards (primary)

DELETE FROM tenant_users WHERE id = 1
--> PassThrough to the shard of tenant_users = integer[0] (primary)
-->   Shards: s1

DELETE FROM tenant_users
--> Refuse 0A000: view "tenant_users" is not supported across shards yet
--> DETAIL: It calls a function whose result could differ from shard to shard.

DELETE FROM nameless
--> Refuse 0A000: writing through the view "nameless" of a sharded table is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the table itself.

DELETE FROM recent WHERE id = 5
--> Refuse 0A000: writing through the view "recent" of a sharded table is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the table itself.

-- the first shard's sequence has a shown column's values
INSERT INTO subjects (who) VALUES (1), (2)
--> Insert of rows of subjects stored in (integer[0], integer[1])
-->   Shards of the rows: s1, s1
-->   May use a sequence

INSERT INTO country_codes VALUES ('xx', 'X')
--> Broadcast to all shards (reference table)

INSERT INTO rate_codes VALUES ('xx', 1)
--> Refuse 0A000: this write of the reference table "rate_codes" is not supported
--> DETAIL: Each shard would compute a value of its own: the default of column "updated". The view does not show column "updated", whose default each shard would compute by itself.
--> HINT: Compute the value first and pass it as a parameter.

INSERT INTO rate_codes SELECT status, total FROM orders
--> Refuse 0A000: this write of the reference table "rate_codes" is not supported
--> DETAIL: It also uses the sharded table "orders", and each shard would see other rows of it. The view does not show column "updated", whose default each shard would compute by itself.

INSERT INTO country_codes SELECT DISTINCT status, status FROM orders
--> Insert of a query's rows, all of them on every shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch orders (status) from all shards

UPDATE country_codes SET label = 'x' WHERE code = 'xx'
--> Broadcast to all shards (reference table)

DELETE FROM country_names
--> Refuse 0A000: writing through the view "country_names" is not supported
--> DETAIL: Rows are written through views of one table, and its shard key if it has one, without rules, triggers, subqueries and functions that do not depend on the row.
--> HINT: Write the reference table itself.

INSERT INTO own_settings VALUES ('a', 'b')
--> PassThrough to shard s0 (primary)

INSERT INTO own_settings SELECT name, email FROM users
--> Insert of a query's rows, all of them on the first shard
--> Workspace (primary)
-->   Reason: its rows are stored on other shards
-->   Fetch users (email, name) from all shards

UPDATE own_settings SET value = 'x'
--> PassThrough to shard s0 (primary)
