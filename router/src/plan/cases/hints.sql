/* switchyard: shard=s1 */ SELECT count(*) FROM users
--> PassThrough to shard s1 (read)

/* switchyard: shard=s1 */ DELETE FROM users
--> PassThrough to shard s1 (primary)

/*switchyard:shard=s1*/ VACUUM users
--> PassThrough to shard s1 (primary)

/* switchyard: shard=s1 */ COPY users FROM STDIN
--> PassThrough to shard s1 (primary)

/* switchyard: shard=s9 */ SELECT 1
--> Refuse 42601: shard "s9" of the routing hint does not exist
--> HINT: A hint is /* switchyard: shard=NAME */, /* switchyard: primary */ or /* switchyard: replica */.

/* switchyard: primary */ SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0
-->   Hint: Primary

/* switchyard: replica */ SELECT * FROM users WHERE id = 5
--> PassThrough to the shard of users = integer[0] (read)
-->   Shards: s0
-->   Hint: Replica

/* switchyard: replica */ UPDATE users SET name = 'x' WHERE id = 5
--> Refuse 42601: the statement may write and cannot run on a replica
--> HINT: A hint is /* switchyard: shard=NAME */, /* switchyard: primary */ or /* switchyard: replica */.

/* switchyard: shard=s1 replica */ SELECT count(*) FROM users
--> PassThrough to shard s1 (read)
-->   Hint: Replica

/* switchyard: nonsense */ SELECT 1
--> Refuse 42601: unrecognized routing hint
--> HINT: A hint is /* switchyard: shard=NAME */, /* switchyard: primary */ or /* switchyard: replica */.

/* switchyard: shard=s1 */ BEGIN
--> Session: Begin(TransactionModes { isolation: None, read_only: None, deferrable: None })

/* another comment */ SELECT 1
--> PassThrough to any shard (read)

SELECT /* switchyard: shard=s1 */ 1
--> PassThrough to any shard (read)

-- shards: 1
SELECT count(*) FROM users
--> PassThrough to shard s0 (read)

SELECT * FROM users u LEFT JOIN settings s ON s.key = u.name ORDER BY 1
--> PassThrough to shard s0 (read)
-->   Guards: [0]

INSERT INTO tickets (user_id) VALUES (1)
--> PassThrough to shard s0 (primary)
-->   May use a sequence

INSERT INTO rates (code) VALUES ('x')
--> PassThrough to shard s0 (primary)

UPDATE users SET id = id + 1
--> PassThrough to shard s0 (primary)

SELECT total_spent(1), any_sql('x'), add_country()
--> Write on shard s0 (primary)
-->   Leaves the backend dirty
-->   May use a sequence
-->   Keeps unique: members_email_key

VACUUM
--> PassThrough to shard s0 (primary)

CREATE DATABASE x
--> PassThrough to shard s0 (primary)

COPY users FROM STDIN
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT * FROM order_view
--> PassThrough to shard s0 (read)

SELECT * FROM users WHERE CURRENT OF c
--> PassThrough to shard s0 (primary)
-->   May use a sequence

SELECT now()
--> PassThrough to any shard (read)

BEGIN
--> Session: Begin(TransactionModes { isolation: None, read_only: None, deferrable: None })

SELECT * INTO t FROM users
--> PassThrough to shard s0 (primary)

LOAD 'x'
--> PassThrough to shard s0 (primary)
-->   Pins: Library
