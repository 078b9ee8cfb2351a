-- integers of any width compare
SELECT * FROM order_items WHERE user_id = 5
--> PassThrough to the shard of order_items = integer[0] (read)
-->   Shards: s0

SELECT * FROM order_items WHERE user_id = 99999999999
--> PassThrough to the shard of order_items = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 99999999999999999999
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = -9223372036854775808
--> PassThrough to the shard of users = -integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5.0
--> PassThrough to the shard of users = decimal[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5.5
--> PassThrough to the shard of users = decimal[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5e0
--> PassThrough to the shard of users = decimal[0] (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = '5'
--> PassThrough to the shard of users = string[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = ' 5 '
--> PassThrough to the shard of users = string[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 'abc'
--> PassThrough to the shard of users = string[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = '5'::int
--> PassThrough to the shard of users = string[0]::integer (read)
-->   Shards: s0

SELECT * FROM users WHERE id = '5'::text
--> PassThrough to the shard of users = string[0]::text (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = int8 '5'
--> PassThrough to the shard of users = string[0]::bigint (read)
-->   Shards: s0

SELECT * FROM users WHERE id = CAST('5' AS bigint)
--> PassThrough to the shard of users = string[0]::bigint (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5::numeric
--> PassThrough to the shard of users = integer[0]::numeric (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = 5.7::int
--> PassThrough to the shard of users = decimal[0]::integer (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id = 5.0::int
--> PassThrough to the shard of users = decimal[0]::integer (read)
-->   Shards: s0

SELECT * FROM users WHERE id = 5::float8
--> Append of all shards (read)

SELECT * FROM users WHERE id = '5'::pg_catalog.int8
--> PassThrough to the shard of users = string[0]::bigint (read)
-->   Shards: s0

SELECT * FROM users WHERE id = (5)
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = +5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = - - 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0

SELECT * FROM users WHERE id = -5::int8
--> PassThrough to the shard of users = -integer[0]::bigint (read)
-->   Shards: s1

SELECT * FROM users WHERE id = 2 + 3
--> Append of all shards (read)

SELECT * FROM users WHERE id + 0 = 5
--> Append of all shards (read)

SELECT * FROM users WHERE id::text = '5'
--> Append of all shards (read)

SELECT * FROM users WHERE -id = 5
--> Append of all shards (read)

SELECT * FROM users WHERE id = NULL
--> PassThrough to the shard of users = null (read)
-->   Shards: s0

SELECT * FROM users WHERE id IS NULL
--> Append of the shards of users is null (read)
-->   Shards: s0

SELECT * FROM users WHERE id IN (NULL)
--> Append of the shards of users in (null) (read)
-->   Shards: s0

SELECT * FROM users WHERE id IN (5, NULL)
--> Append of the shards of users in (integer[0], null) (read)
-->   Shards: s0

SELECT * FROM users WHERE id = $1::text::int8
--> PassThrough to the shard of users = $1::text::bigint (read)

SELECT * FROM users WHERE id = E'5'
--> Append of all shards (read)

SELECT * FROM users WHERE id = $$5$$
--> Append of all shards (read)

SELECT * FROM users WHERE id = U&'5'
--> Append of all shards (read)

SELECT * FROM users WHERE id = 0x5
--> Workspace (read)
-->   Reason: this statement is not understood well enough to be sent to the right shards
-->   Fetch users (id, email, name, age, created) from all shards

SELECT * FROM users WHERE id = 1_000
--> Append of all shards (read)

SELECT * FROM users WHERE id <> 5
--> Append of all shards (read)

SELECT * FROM users WHERE NOT id = 5
--> Append of all shards (read)

SELECT * FROM users WHERE (id = 5) IS TRUE
--> Append of all shards (read)

SELECT * FROM users WHERE (id = 5) IS NOT NULL
--> Append of all shards (read)

SELECT * FROM users WHERE id = 5 IS NULL
--> Append of all shards (read)

SELECT * FROM users WHERE id IS NOT DISTINCT FROM 5
--> Append of all shards (read)

SELECT * FROM users WHERE id BETWEEN 5 AND 5
--> Append of the shards of users >= integer[0] <= integer[1] (read)
-->   Shards: s0

SELECT * FROM users WHERE id BETWEEN 5 AND 6
--> Append of the shards of users >= integer[0] <= integer[1] (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id >= 5 AND id <= 5
--> Append of the shards of users (>= integer[0] and <= integer[1]) (read)
-->   Shards: s0, s1

SELECT * FROM users WHERE id OPERATOR(pg_catalog.=) 5
--> Append of all shards (read)

-- text
SELECT * FROM accounts WHERE name = 'it''s'
--> PassThrough to the shard of accounts = string[0] (read)
-->   Shards: s0

SELECT * FROM accounts WHERE name = 5
--> PassThrough to the shard of accounts = integer[0] (read)
-->   Shards: s0, s1

SELECT * FROM accounts WHERE name = '5'::int
--> PassThrough to the shard of accounts = string[0]::integer (read)
-->   Shards: s0, s1

SELECT * FROM accounts WHERE name = 'a' COLLATE "C"
--> Append of all shards (read)

SELECT * FROM accounts WHERE name LIKE 'a%'
--> Append of all shards (read)

SELECT * FROM accounts WHERE name = 'x'::varchar(1)
--> Append of all shards (read)

SELECT * FROM accounts WHERE lower(name) = 'x'
--> Append of all shards (read)

SELECT * FROM accounts a JOIN nocased n ON n.label = a.name WHERE n.label = 'x'
--> Workspace (read)
-->   Reason: joining "accounts" and "nocased" across shards is not supported yet
-->   Bind join, if few: nocased
-->   Bind join, if few: accounts
-->   Bind join, if few: accounts, nocased
-->   Fetch accounts (name, balance) from all shards
-->   Fetch nocased (id, label) from all shards
-->     Only: label = 'x'

SELECT * FROM accounts a JOIN codes c ON c.code = a.name
--> Workspace (read)
-->   Reason: joining "accounts" and "codes" across shards is not supported yet
-->   Bind join, if few: codes
-->   Bind join, if few: accounts
-->   Bind join, if few: accounts, codes
-->   Fetch accounts (name, balance) from all shards
-->   Fetch codes (code, label) from all shards

SELECT * FROM accounts a JOIN codes c ON c.code = a.name WHERE a.name = 'x'
--> Workspace (read)
-->   Reason: joining "accounts" and "codes" across shards is not supported yet
-->   Bind join, if few: codes
-->   Bind join, if few: accounts
-->   Bind join, if few: accounts, codes
-->   Fetch accounts (name, balance) from the shard of accounts = string[0]
-->     Only: name = 'x'
-->   Fetch codes (code, label) from all shards

SELECT * FROM codes WHERE code = 'ab  '
--> PassThrough to the shard of codes = string[0] (read)
-->   Shards: s1

SELECT * FROM codes WHERE code = 'ab'
--> PassThrough to the shard of codes = string[0] (read)
-->   Shards: s1

SELECT * FROM codes WHERE code = 'ab'::text
--> PassThrough to the shard of codes = string[0]::text (read)
-->   Shards: s0, s1

-- uuid
SELECT * FROM tenants WHERE tid = '6f1e0d8a-1111-4222-8333-444455556666'
--> PassThrough to the shard of tenants = string[0] (read)
-->   Shards: s0

SELECT * FROM tenants WHERE tid = '{6F1E0D8A111142228333444455556666}'
--> PassThrough to the shard of tenants = string[0] (read)
-->   Shards: s0

SELECT * FROM tenants WHERE tid = '6f1e0d8a-1111-4222-8333-444455556666'::uuid
--> PassThrough to the shard of tenants = string[0]::uuid (read)
-->   Shards: s0

SELECT * FROM tenants WHERE tid = 'nonsense'
--> PassThrough to the shard of tenants = string[0] (read)
-->   Shards: s0

SELECT * FROM tenants WHERE tid = $1::uuid
--> PassThrough to the shard of tenants = $1::uuid (read)

-- numeric
SELECT * FROM prices WHERE amount = 1.50
--> PassThrough to the shard of prices = decimal[0] (read)
-->   Shards: s0

SELECT * FROM prices WHERE amount = 1.5
--> PassThrough to the shard of prices = decimal[0] (read)
-->   Shards: s0

SELECT * FROM prices WHERE amount = 15e-1
--> PassThrough to the shard of prices = decimal[0] (read)
-->   Shards: s0

SELECT * FROM prices WHERE amount = 2
--> PassThrough to the shard of prices = integer[0] (read)
-->   Shards: s0

-- dates and ranges
SELECT * FROM events WHERE day = '2025-06-01'
--> PassThrough to the shard of events = string[0] (read)
-->   Shards: s0

SELECT * FROM events WHERE day = date '2026-06-01'
--> PassThrough to the shard of events = string[0]::date (read)
-->   Shards: s1

SELECT * FROM events WHERE day < '2025-06-01'
--> Append of the shards of events < string[0] (read)
-->   Shards: s0

SELECT * FROM events WHERE day >= '2026-01-01'
--> Append of the shards of events >= string[0] (read)
-->   Shards: s1

SELECT * FROM events WHERE day >= '2025-12-31'
--> Append of the shards of events >= string[0] (read)
-->   Shards: s0, s1

SELECT * FROM events WHERE day < '2026-01-01'
--> Append of the shards of events < string[0] (read)
-->   Shards: s0

SELECT count(*) FROM events WHERE day BETWEEN '2025-01-01' AND '2025-12-31'
--> Merge of the shards of events >= string[0] <= string[1] (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM events WHERE day BETWEEN '2025-01-01' AND '2025-12-31'

SELECT count(*) FROM events WHERE day BETWEEN '2025-01-01' AND '2026-12-31'
--> Merge of the shards of events >= string[0] <= string[1] (read)
-->   Shards: s0, s1
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM events WHERE day BETWEEN '2025-01-01' AND '2026-12-31'

SELECT count(*) FROM events WHERE day >= '2025-01-01' AND day < '2025-02-01'
--> Merge of the shards of events (>= string[0] and < string[1]) (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM events WHERE day >= '2025-01-01' AND day < '2025-02-01'

SELECT count(*) FROM events WHERE '2025-01-01' > day
--> Merge of the shards of events < string[0] (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM events WHERE '2025-01-01' > day

SELECT count(*) FROM events WHERE day = 'today'
--> PassThrough to the shard of events = string[0] (read)
-->   Refuse aggregates are not supported across shards yet

SELECT count(*) FROM events WHERE day = current_date
--> Workspace (read)
-->   Reason: aggregates are not supported across shards yet
-->   Bind join, if few: events
-->   Fetch events (day) from all shards

SELECT count(*) FROM events WHERE day = timestamp '2025-06-01'
--> PassThrough to the shard of events = string[0]::timestamp without time zone (read)
-->   Refuse aggregates are not supported across shards yet

SELECT * FROM events WHERE day BETWEEN SYMMETRIC '2025-01-01' AND '2024-01-01'
--> Append of all shards (read)

-- lists
SELECT * FROM regions WHERE code = 'kr'
--> PassThrough to the shard of regions = string[0] (read)
-->   Shards: s0

SELECT * FROM regions WHERE code = 'de'
--> PassThrough to the shard of regions = string[0] (read)
-->   Shards: s1

SELECT * FROM regions WHERE code IN ('kr', 'jp')
--> Append of the shards of regions in (string[0], string[1]) (read)
-->   Shards: s0

SELECT * FROM regions WHERE code IS NULL
--> Append of the shards of regions is null (read)
-->   Shards: s1

SELECT count(*) FROM regions WHERE code = 'kr' OR code = 'jp'
--> Merge of the shards of regions (= string[0] or = string[1]) (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE code = 'kr' OR code = 'jp'

SELECT count(*) FROM regions WHERE code = 'kr' OR (code = 'jp' AND name = 'x')
--> Merge of the shards of regions (= string[0] or = string[1]) (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE code = 'kr' OR (code = 'jp' AND name = 'x')

SELECT count(*) FROM regions WHERE code = 'kr' OR code = 'de'
--> Merge of the shards of regions (= string[0] or = string[1]) (read)
-->   Shards: s0, s1
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE code = 'kr' OR code = 'de'

SELECT count(*) FROM regions WHERE (code = 'kr' OR code = 'jp') AND (code = 'jp' OR code = 'de')
--> Merge of the shards of regions ((= string[0] or = string[1]) and (= string[2] or = string[3])) (read)
-->   Shards: s0
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE (code = 'kr' OR code = 'jp') AND (code = 'jp' OR code = 'de')

-- an OR that is always true (Vitess #19539)
SELECT count(*) FROM regions WHERE code = 'kr' OR true
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE code = 'kr' OR true

SELECT count(*) FROM regions WHERE code = 'kr' OR 1 = 1
--> Merge of all shards (read)
-->   One row of all
-->     1: sum of bigint
-->   Text: SELECT count(*) FROM regions WHERE code = 'kr' OR 1 = 1

-- modulo
SELECT * FROM metrics WHERE id = 4
--> PassThrough to the shard of metrics = integer[0] (read)
-->   Shards: s0

SELECT * FROM metrics WHERE id = -3
--> PassThrough to the shard of metrics = -integer[0] (read)
-->   Shards: s1

SELECT * FROM metrics WHERE id IN (2, 4)
--> Append of the shards of metrics in (integer[0], integer[1]) (read)
-->   Shards: s0
