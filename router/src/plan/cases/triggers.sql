-- a trigger that only changes the row
UPDATE stamped SET id = id WHERE id = 5
--> PassThrough to the shard of stamped = integer[0] (primary)
-->   Shards: s0
-->   May use a sequence

-- one that writes a table of the first shard
INSERT INTO logged VALUES (5)
--> PassThrough to the shard of logged stored = integer[0], first shard only (primary)
-->   Shards: s0

INSERT INTO logged VALUES (1)
--> PassThrough to the shard of logged stored = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together

SELECT * FROM logged
--> Append of all shards (read)

-- one that writes a colocated table
INSERT INTO counted VALUES (1, 'x')
--> Write on the shard of counted stored = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

DELETE FROM counted WHERE user_id = 1
--> Write on the shard of counted = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

-- one that writes a sharded table that is not colocated
INSERT INTO scattering VALUES (1, 'x')
--> Refuse 0A000: writing table "scattering" is not supported: a trigger of it uses the sharded table "accounts"
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- one that writes a reference table
INSERT INTO copying VALUES (1)
--> Refuse 0A000: writing table "copying" is not supported: a trigger of it may write the reference table "countries"
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- one whose code is not known
INSERT INTO hidden VALUES (1)
--> Refuse 0A000: writing table "hidden" is not supported: a trigger of it runs code that the router cannot see: function "hide_it"
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- each shard would store a time of its own
INSERT INTO stamped_reference (code) VALUES ('x')
--> Refuse 0A000: this write of the reference table "stamped_reference" is not supported
--> DETAIL: Each shard would compute a value of its own: a trigger that uses "now". A trigger of it would do something else on each shard.
--> HINT: Compute the value first and pass it as a parameter.

DELETE FROM stamped_reference
--> Refuse 0A000: this write of the reference table "stamped_reference" is not supported
--> DETAIL: Each shard would compute a value of its own: a trigger that uses "now".
--> HINT: Compute the value first and pass it as a parameter.

-- an unsharded table whose trigger writes a sharded one
INSERT INTO noted VALUES (1)
--> Refuse 0A000: writing table "noted" is not supported: a trigger of it uses the sharded table "profiles"
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- on several shards
UPDATE stamped SET id = id
--> Refuse 0A000: writing table "stamped" on several shards in one statement is not supported: a trigger of it uses "now", and each shard would compute a value of its own

DELETE FROM counted
--> Write on all shards (primary)
-->   Keeps unique: members_email_key

DELETE FROM summed
--> Refuse 0A000: writing table "summed" on several shards in one statement is not supported: a trigger of it runs once for a statement, and would run once on each shard

DELETE FROM summed WHERE id = 5
--> PassThrough to the shard of summed = integer[0] (primary)
-->   Shards: s0

-- one that may change the shard key
INSERT INTO rekeyed VALUES (1, 'x')
--> Refuse 0A000: writing table "rekeyed" is not supported: a trigger of it may change the shard key
--> DETAIL: Function "rekey_it" runs on a shard that is chosen by the key that the row has before.
--> HINT: Write the function in PL/pgSQL, without assigning to NEW or NEW.id and without returning another row.

INSERT INTO rekeyed SELECT id, name FROM users
--> Refuse 0A000: writing table "rekeyed" is not supported: a trigger of it may change the shard key
--> DETAIL: Function "rekey_it" runs on a shard that is chosen by the key that the row has before.
--> HINT: Write the function in PL/pgSQL, without assigning to NEW or NEW.id and without returning another row.

UPDATE rekeyed SET v = 'x' WHERE id = 1
--> Refuse 0A000: writing table "rekeyed" is not supported: a trigger of it may change the shard key
--> DETAIL: Function "rekey_it" runs on a shard that is chosen by the key that the row has before.
--> HINT: Write the function in PL/pgSQL, without assigning to NEW or NEW.id and without returning another row.

COPY rekeyed FROM STDIN
--> Refuse 0A000: writing table "rekeyed" is not supported: a trigger of it may change the shard key
--> DETAIL: Function "rekey_it" runs on a shard that is chosen by the key that the row has before.
--> HINT: Write the function in PL/pgSQL, without assigning to NEW or NEW.id and without returning another row.

DELETE FROM rekeyed
--> Write on all shards (primary)

-- rules
INSERT INTO ruled VALUES (1)
--> Refuse 0A000: writing "ruled" is not supported: it has rules for statements that write it
--> DETAIL: The statements that they make would run on the shard of the row and see that shard only.
--> HINT: Use triggers in place of rules.

DELETE FROM ruled WHERE id = 1
--> Refuse 0A000: writing "ruled" is not supported: it has rules for statements that write it
--> DETAIL: The statements that they make would run on the shard of the row and see that shard only.
--> HINT: Use triggers in place of rules.

-- code that uses rows with the same shard key, and others
INSERT INTO copied VALUES (1, 'x')
--> Write on the shard of copied stored = integer[0] (primary)
-->   Shards: s1
-->   Keeps unique: members_email_key

COPY copied FROM STDIN
--> Copy of rows of text by field 1, bigint
-->   Keeps unique: members_email_key

INSERT INTO strayed VALUES (1, 1, 'x')
--> Refuse 0A000: writing table "strayed" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

COPY strayed FROM STDIN
--> Refuse 0A000: writing table "strayed" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.
-->   Keeps unique: members_email_key

DELETE FROM strayed WHERE id = 1
--> Refuse 0A000: writing table "strayed" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

INSERT INTO chained VALUES (1, 'x')
--> Refuse 0A000: writing table "chained" is not supported: a trigger of it may write table "strayed", a trigger of which may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

UPDATE paired SET v = 'x' WHERE id = 1
--> Refuse 0A000: writing table "paired" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- TRUNCATE's run once for a statement
TRUNCATE summed
--> Broadcast to all shards (schema)

TRUNCATE logged
--> Broadcast to all shards (schema)

TRUNCATE users CASCADE
-- one that reads rows of its own table that may be on other shards
INSERT INTO checked VALUES (1, 'x')
--> Broadcast to all shards (schema)
-->   Keeps unique: members_email_key

-- one that writes a row of a colocated table with another key
INSERT INTO spreading VALUES (1, 'x')
--> Refuse 0A000: writing table "spreading" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- one that inserts rows with the same key
INSERT INTO remarking VALUES (1, 'x'), (2, 'x'), (5, 'x')
--> Write on the shards of remarking stored in (integer[0], integer[2], integer[4]) (primary)
-->   Shards of the rows: s1, s1, s0
-->   Keeps unique: members_email_key

-- with a value of a sequence
INSERT INTO noting VALUES (1, 'x')
--> Refuse 0A000: writing table "noting" is not supported: a trigger of it may use rows with other shard keys
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- one whose code calls what reads a table of the first shard
INSERT INTO calling VALUES (1, 'x')
--> PassThrough to the shard of calling stored = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   May use a sequence

INSERT INTO calling VALUES (5, 'x')
--> PassThrough to the shard of calling stored = integer[0], first shard only (primary)
-->   Shards: s0
-->   May use a sequence

-- in its condition
INSERT INTO conditional VALUES (1, 'x')
--> PassThrough to the shard of conditional stored = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   May use a sequence

-- one whose code calls what takes a value of a sequence
INSERT INTO numbered VALUES (1, 'x')
--> PassThrough to the shard of numbered stored = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   May use a sequence

-- one that writes a table whose trigger writes a table of the first shard
INSERT INTO linked VALUES (1, 'x')
--> Write on the shard of linked stored = integer[0], first shard only (primary)
-->   Refuse the statement needs the first shard and another one together
-->   Keeps unique: members_email_key

-- TRUNCATE
TRUNCATE emptied
--> Refuse 0A000: writing table "emptied" is not supported: a trigger of it runs function "remark_it" once for a statement, and would run it once on each shard
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.
--> HINT: Use DELETE, or disable the trigger.

TRUNCATE users CASCADE
--> Broadcast to all shards (schema)

TRUNCATE emptied_here
--> PassThrough to shard s0 (primary)

TRUNCATE users
--> Broadcast to all shards (schema)

INSERT INTO emptied VALUES (1), (5)
--> PassThrough to the shards of emptied stored in (integer[0], integer[1]) (primary)
-->   Shards of the rows: s1, s0
