-- policies that use a table of the first shard
SELECT * FROM secured WHERE id = 1
--> Refuse 0A000: table "secured" is not supported: its row security policies use "settings"
--> DETAIL: Policies are applied on the shard of the rows and see that shard only.
--> HINT: Let policies use reference tables, or settings.

SELECT count(*) FROM secured
--> Refuse 0A000: table "secured" is not supported: its row security policies use "settings"
--> DETAIL: Policies are applied on the shard of the rows and see that shard only.
--> HINT: Let policies use reference tables, or settings.

UPDATE secured SET v = 'x'
--> Refuse 0A000: table "secured" is not supported: its row security policies use "settings"
--> DETAIL: Policies are applied on the shard of the rows and see that shard only.
--> HINT: Let policies use reference tables, or settings.

COPY secured TO STDOUT
--> Refuse 0A000: table "secured" is not supported: its row security policies use "settings"
--> DETAIL: Policies are applied on the shard of the rows and see that shard only.
--> HINT: Let policies use reference tables, or settings.

SELECT * FROM secured_here
--> PassThrough to shard s0 (read)

SELECT * FROM secured_copies
--> Refuse 0A000: table "secured_copies" is not supported: its row security policies use "of_setting()"
--> DETAIL: Policies are applied on the shard of the rows and see that shard only.
--> HINT: Let policies use reference tables, or settings.

-- those that look at the row, at settings and at reference tables
SELECT id FROM tenanted
--> Append of all shards (read)

UPDATE tenanted SET v = 'x'
--> Write on all shards (primary)

-- the time
SELECT id FROM expiring WHERE id = 1
--> PassThrough to the shard of expiring = integer[0] (read)
-->   Shards: s1

SELECT id FROM expiring
--> Refuse 0A000: table "expiring" is not supported across shards: its row security policies use "now"
--> DETAIL: Each shard would compute a value of its own. Row security policies in it would not be one condition for all rows.
