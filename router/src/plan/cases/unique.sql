-- a write of one shard is looked after
INSERT INTO members VALUES (1, 'a@x', 'A')
--> Write on the shard of members stored = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

UPDATE members SET email = 'b@x' WHERE id = 1
--> Write on the shard of members = integer[1] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

INSERT INTO members VALUES (1, 'a@x', 'A'), (5, 'b@x', 'B')
--> Write on the shards of members stored in (integer[0], integer[3]) (primary)
-->   Shards of the rows: s1, s0
-->   Keeps unique: members_email_key

INSERT INTO members (id, email) VALUES ($1, $2), ($3, $4)
--> Write on the shards of members stored in ($1, $3) (primary)
-->   Keeps unique: members_email_key

DELETE FROM members
--> Write on all shards (primary)
-->   Keeps unique: members_email_key

UPDATE members SET id = 7 WHERE id = 1
--> Write on the shard of members = integer[1], members stored = integer[0] (primary)
-->   Refuse a statement that writes and needs rows of several shards is not supported yet
-->   Keeps unique: members_email_key

INSERT INTO members SELECT id, note FROM jobs
--> Write on all shards (primary)
-->   Keeps unique: members_email_key

COPY members FROM STDIN
--> Copy of rows of text by field 1, bigint
-->   Keeps unique: members_email_key

TRUNCATE members
--> Broadcast to all shards (schema)
-->   Keeps unique: members_email_key

-- reading is not
SELECT * FROM members WHERE email = 'a@x'
--> Append of all shards (read)
-->   Located by: members_email_key

SELECT * FROM members FOR UPDATE
--> Append of all shards (locking read: primary)

EXPLAIN INSERT INTO members VALUES (1, 'a@x', 'A')
--> PassThrough to the shard of members stored = integer[0] (primary)
-->   Shards: s1

-- nor is what writes others
INSERT INTO jobs VALUES (1, 'x', 'y')
--> PassThrough to the shard of jobs stored = integer[0] (primary)
-->   Shards: s1

INSERT INTO member_notes VALUES (1, 'x')
--> PassThrough to the shard of member_notes stored = integer[0] (primary)
-->   Shards: s1

-- code might write it
INSERT INTO counted VALUES (1, 'x')
--> Write on the shard of counted stored = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

/* switchyard: shard=s1 */ SELECT any_sql('x')
--> Write on shard s1 (primary)
-->   Keeps unique: members_email_key

/* switchyard: shard=s1 */ INSERT INTO members VALUES (1, 'a@x', 'A')
--> Write on shard s1 (primary)
-->   Keeps unique: members_email_key

-- and this does not
SELECT touch()
--> PassThrough to shard s0 (primary)

INSERT INTO stamped VALUES (5)
--> PassThrough to the shard of stamped stored = integer[0] (primary)
-->   Shards: s0
-->   May use a sequence

-- conflicts
INSERT INTO members VALUES (1, 'a@x', 'A') ON CONFLICT (id) DO UPDATE SET email = 'c@x'
--> Write on the shard of members stored = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

INSERT INTO members VALUES (1, 'a@x', 'A') ON CONFLICT (email) DO NOTHING
--> Refuse 0A000: ON CONFLICT without the shard key "id" is not supported
--> DETAIL: A conflicting row of table "members" may be on another shard.
--> HINT: Make the shard key part of the unique index and of the conflict target.

INSERT INTO members VALUES (1, 'a@x', 'A') ON CONFLICT DO NOTHING
--> Refuse 0A000: ON CONFLICT about the global unique index "members_email_key" is not supported
--> DETAIL: The values are on other shards than the rows.
--> HINT: Name the columns of a unique constraint that contains the shard key: ON CONFLICT (…).

INSERT INTO members VALUES (1, 'a@x', 'A') ON CONFLICT ON CONSTRAINT members_email_key DO NOTHING
--> Refuse 0A000: ON CONFLICT about the global unique index "members_email_key" is not supported
--> DETAIL: The values are on other shards than the rows.
--> HINT: Name the columns of a unique constraint that contains the shard key: ON CONFLICT (…).

INSERT INTO jobs SELECT id, name, email FROM members WHERE id = 5 ON CONFLICT (id) DO NOTHING
--> Write on the shard of members = integer[0] (primary)
-->   Shards: s0
-->   Keeps unique: members_email_key

-- Reads of one value find its shard by the index; a result that always has a row does not tell whether it was there.
SELECT * FROM members WHERE email = 'a@x'
--> Append of all shards (read)
-->   Located by: members_email_key

SELECT name FROM members AS m WHERE m.email = $1 AND name > 'b' ORDER BY id LIMIT 1
--> Merge of all shards (read)
-->   Merge by 2 bigint
-->   Limit
-->   Columns shown: 1
-->   Text: SELECT name, (id) AS "switchyard 1" FROM members AS m WHERE m.email = $1 AND name > 'b' ORDER BY id LIMIT (1)
-->   Located by: members_email_key

SELECT count(*) FROM members WHERE email = 'a@x'
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM members WHERE email = 'a@x'

SELECT name, count(*) FROM members WHERE email = 'a@x' GROUP BY name
--> Merge of all shards (read)
-->   Merge by 3 text
-->   One row of those with equal keys
-->     2: sum of bigint
-->   Columns shown: 2
-->   Text: SELECT name, count(*), (name) COLLATE pg_catalog."C" AS "switchyard 1" FROM members WHERE email = 'a@x' GROUP BY name ORDER BY 3 NULLS LAST
-->   Located by: members_email_key

SELECT * FROM members WHERE email IN ('a@x', 'b@x')
--> Append of all shards (read)

SELECT * FROM members WHERE id = 7 AND email = 'a@x'
--> PassThrough to the shard of members = integer[0] (read)
-->   Shards: s0

SELECT * FROM members WHERE email = 'a@x' FOR UPDATE
--> Append of all shards (locking read: primary)

SELECT 1 WHERE EXISTS (SELECT FROM members WHERE email = 'a@x')
--> Workspace (read)
-->   Reason: this use of a sharded table needs the rows of all shards together, which is not supported yet
-->   Bind join, if few: members
-->   Fetch members (id) from all shards
-->     Only: email = 'a@x'
