-- by key
SELECT * FROM users WHERE id = 5

SELECT * FROM users WHERE 5 = id AND name = 'x'

SELECT * FROM users WHERE id = $1

SELECT * FROM users WHERE id = $1::int8

SELECT name FROM public.users u WHERE u.id = '7'

SELECT name FROM "users" WHERE "users"."id" = -3

SELECT * FROM users WHERE id IN (1, 2, 3)

SELECT * FROM users WHERE id = ANY ('{1,2,3}')

SELECT * FROM users WHERE id = ANY ($1)

SELECT * FROM users WHERE id = ANY (ARRAY[1, 2])

SELECT * FROM users WHERE id = ANY ($1::bigint[])

SELECT * FROM users

SELECT id, name FROM users WHERE age > 30

SELECT * FROM users WHERE id = 1 OR id = 2

SELECT * FROM users WHERE id = 1 OR name = 'x'

SELECT * FROM users WHERE id = 1 AND id = 2

SELECT count(*) FROM users

SELECT count(*) FROM users WHERE id = 5

SELECT * FROM users ORDER BY id

SELECT * FROM users LIMIT 10

SELECT 1

SELECT now()

SELECT random()

SELECT * FROM countries

SELECT * FROM settings

SELECT * FROM nowhere
