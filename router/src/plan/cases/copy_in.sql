-- Rows that a client copies go to the shards of their keys.
COPY users FROM STDIN
--> Copy of rows of text by field 1, bigint

copy binary orders from stdin
--> Copy of rows of binary by field 2, bigint

COPY public.order_items (product_id, user_id) FROM STDIN WITH (FORMAT csv, HEADER match, QUOTE '''', FORCE_NULL (user_id))
--> Copy of rows of csv by field 2, integer
-->   Guards: [0]

COPY users FROM STDIN WITH DELIMITER AS E'\t' NULL AS '' CSV HEADER FORCE NOT NULL id, name WHERE id > 5
--> Copy of rows of csv by field 1, bigint
-->   Guards: [0, 1]

COPY users FROM STDIN USING DELIMITERS '|'
--> Copy of rows of text by field 1, bigint
-->   Guards: [0]

-- The key is NULL in all rows.
COPY order_items (order_id, product_id) FROM STDIN
--> Copy of rows of text whose key, integer, is NULL

-- It has a default.
COPY keyed (v) FROM STDIN
--> Refuse 0A000: the shard key "id" of table "keyed" must be among the columns that are copied
--> DETAIL: Its default value is computed where the row is stored, and where that is depends on it.

-- A sequence of each shard's own.
COPY tickets (user_id, subject) FROM STDIN
--> Copy of rows of text by field 1, bigint
-->   Values given for id
-->   May use a sequence

COPY tickets FROM STDIN
--> Copy of rows of text by field 2, bigint
-->   May use a sequence

-- What is not known to be read alike is asked for, and then refused.
COPY users FROM STDIN (ON_ERROR ignore)
--> Refuse 0A000: these options of COPY FROM are not supported over several shards
--> DETAIL: The router finds the shard key in each row by them.

COPY users FROM STDIN (FORMAT csv, ENCODING 'LATIN1')
--> Copy of rows of csv by field 1, bigint
-->   Converted from latin1
-->   Guards: [0]

COPY users FROM STDIN (ENCODING 'utf-8')
--> Copy of rows of text by field 1, bigint
-->   Guards: [0]

COPY users FROM STDIN (DELIMITER 'ab')
--> Refuse 0A000: these options of COPY FROM are not supported over several shards
--> DETAIL: The router finds the shard key in each row by them.
-->   Guards: [0]

COPY users FROM '/tmp/x'
--> Refuse 0A000: COPY of a file or program of a server into the table "users" is not supported
--> HINT: Copy FROM STDIN.

COPY users FROM PROGRAM 'cat'
--> Refuse 0A000: COPY of a file or program of a server into the table "users" is not supported
--> HINT: Copy FROM STDIN.

-- Reference tables.
COPY countries FROM STDIN
--> Copy of all rows to all shards

COPY rates (code, rate) FROM STDIN
--> Refuse 0A000: the rows of the reference table "rates" would differ from shard to shard
--> DETAIL: Each shard would compute a value of its own: the default of column "updated".
--> HINT: Copy a value into the column "updated".

COPY copying FROM STDIN
--> Refuse 0A000: writing table "copying" is not supported: a trigger of it may write the reference table "countries"
--> DETAIL: The trigger runs on the shard of the row and sees that shard only.

-- conditions
COPY users FROM STDIN WHERE age > 5 AND lower(name) = 'x'
--> Copy of rows of text by field 1, bigint
-->   Guards: [0, 1]

COPY users FROM STDIN WHERE random() < 0.5
--> Copy of rows of text by field 1, bigint
-->   Guards: [0]

COPY users FROM STDIN WHERE name = of_setting()
--> Refuse 0A000: function "of_setting" in the WHERE of a COPY is not supported across shards
--> DETAIL: Each shard would compute a result of its own for its rows.
--> HINT: Copy into a table of the first shard, and INSERT … SELECT from there.

COPY users FROM STDIN (FORMAT csv) WHERE nextval('audit_log_id_seq') < 5
--> Refuse 0A000: function "nextval" in the WHERE of a COPY is not supported across shards
--> DETAIL: Each shard would compute a result of its own for its rows.
--> HINT: Copy into a table of the first shard, and INSERT … SELECT from there.
-->   Guards: [0, 1]

COPY users FROM STDIN WHERE created < now()
--> Refuse 0A000: function "now" in the WHERE of a COPY is not supported across shards
--> DETAIL: Each shard would compute a result of its own for its rows.
--> HINT: Copy into a table of the first shard, and INSERT … SELECT from there.

COPY users FROM STDIN WHERE created::date < current_date
--> Refuse 0A000: function "current_date" in the WHERE of a COPY is not supported across shards
--> DETAIL: Each shard would compute a result of its own for its rows.
--> HINT: Copy into a table of the first shard, and INSERT … SELECT from there.

COPY countries FROM STDIN WHERE random() < 0.5
--> Refuse 0A000: function "random" in the WHERE of a COPY is not supported across shards
--> DETAIL: Each shard would compute a result of its own for its rows.
--> HINT: Copy into a table of the first shard, and INSERT … SELECT from there.
-->   Guards: [0]
