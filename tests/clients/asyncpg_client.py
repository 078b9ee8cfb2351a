"""asyncpg against the shop: its own binary protocol, statement cache and pool. Prints what it saw."""

import asyncio
import decimal
import sys

import asyncpg

url = sys.argv[1]


async def prepared(connection):
    statement = await connection.prepare("SELECT id, name, created_at FROM users WHERE id = $1")
    print("parameters", [parameter.name for parameter in statement.get_parameters()])
    print("attributes", [(attribute.name, attribute.type.name) for attribute in statement.get_attributes()])
    for id in (1, 2, 3, 250):
        print("user", tuple(await statement.fetchrow(id)))
    for id in range(1, 12):
        print("total", id, await connection.fetchval("SELECT sum(total) FROM orders WHERE user_id = $1", id))
    rows = await connection.fetch("SELECT id, price, attributes FROM products WHERE id = ANY($1::int[])", [1, 2, 3, 4])
    assert all(isinstance(row["price"], decimal.Decimal) for row in rows)
    print("several", sorted(tuple(row) for row in rows))
    rows = await connection.fetch("SELECT id FROM users WHERE country = $1", "no")
    print("everywhere", sorted(row["id"] for row in rows))


async def transactions(connection):
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO users (id, email, name, country) VALUES ($1, $2, $3, $4)", 600001, "a@example.com", "A", "no"
        )
        await connection.executemany(
            "INSERT INTO orders (user_id, id, ship_to, total) VALUES ($1, $2, $3, $4)",
            [(600001, n, "no", decimal.Decimal(n)) for n in range(1, 6)],
        )
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM orders WHERE user_id = $1", 600001)
                await connection.fetchval("SELECT 1 / 0 FROM users WHERE id = $1", 600001)
        except asyncpg.DivisionByZeroError as error:
            print("undone", error.sqlstate)
        # A cursor: portals with a row limit.
        rows = [tuple(row) async for row in connection.cursor(
            "SELECT id, total FROM orders WHERE user_id = $1 ORDER BY id", 600001, prefetch=2)]
        print("cursor", rows)
    try:
        await connection.execute("INSERT INTO users (id, email, name, country) VALUES ($1, 'x', 'x', 'no')", 600001)
    except asyncpg.UniqueViolationError as error:
        print("refused", error.sqlstate, error.constraint_name)
    async with connection.transaction(readonly=True, isolation="repeatable_read"):
        print("orders", tuple(await connection.fetchrow("SELECT count(*), sum(total) FROM orders WHERE user_id = $1", 600001)))


async def copy(connection):
    records = [(id, f"note {id}" if id % 7 else None) for id in range(1, 2001)]
    print("copied in", await connection.copy_records_to_table("notes", records=records, columns=["id", "body"]))
    out = bytearray()

    async def take(data):
        out.extend(data)

    print("copied out", await connection.copy_from_query(
        "SELECT id, total FROM orders WHERE user_id = $1 ORDER BY id", 600001, output=take, format="csv"))
    print(out.decode())
    print("notes", tuple(await connection.fetchrow("SELECT count(*), count(body), max(body) FROM notes")))


async def made_types(url):
    """Types that users have made, which asyncpg looks up by their numbers: in several sessions, for they begin anywhere."""
    for owner in range(1, 6):
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO places (owner, number, kind) VALUES ($1, 1, $2)", owner, "green")
        print("kind", await connection.fetchval("SELECT kind FROM places WHERE owner = $1", owner))
        print("kinds", await connection.fetchval("SELECT array_agg(kind) FROM places WHERE kind = ANY($1::colour[])", ["green", "red"]))
        await connection.execute("INSERT INTO loose VALUES ($1, $2)", owner, "word")
        print("row", await connection.fetchval("SELECT loose FROM loose WHERE id = $1", owner))
        print("given", await connection.fetchval("SELECT ($2::colour[])[2] FROM places WHERE owner = $1", owner, ["red", "blue"]))
        await connection.close()


async def notifications(connection):
    """asyncpg's listeners compare numbers of processes."""
    heard = asyncio.Queue()

    def listener(who, number, channel, payload):
        numbers = {connection.get_server_pid(): "own", other.get_server_pid(): "other"}
        heard.put_nowait((who is connection, numbers.get(number), channel, payload))

    other = await asyncpg.connect(url)
    await connection.add_listener("news", listener)
    await other.execute("NOTIFY news, 'one'")
    print("heard", await asyncio.wait_for(heard.get(), 10))
    await connection.execute("SELECT pg_notify('news', $1)", "two")
    print("heard", await asyncio.wait_for(heard.get(), 10))
    async with connection.transaction():
        await other.execute("SELECT pg_notify('news', $1)", "three")
        print("within", await connection.fetchval("SELECT 1"), heard.qsize())
    print("heard", await asyncio.wait_for(heard.get(), 10))
    await connection.remove_listener("news", listener)
    await other.execute("NOTIFY news, 'four'")
    print("after", await connection.fetchval("SELECT 1"), heard.qsize())
    await other.close()


async def one_of_many(pool, id):
    async with pool.acquire() as connection:
        async with connection.transaction():
            name = await connection.fetchval("SELECT name FROM users WHERE id = $1", id)
            await connection.execute("UPDATE users SET name = $2 WHERE id = $1", id, name)
            return await connection.fetchval("SELECT name FROM users WHERE id = $1", id)


async def main():
    connection = await asyncpg.connect(url)
    await prepared(connection)
    await notifications(connection)
    await transactions(connection)
    await copy(connection)
    await connection.execute("DELETE FROM orders WHERE user_id = 600001")
    await connection.execute("DELETE FROM users WHERE id = 600001")
    await connection.execute("TRUNCATE notes RESTART IDENTITY")
    await made_types(url)
    await connection.execute("DELETE FROM places")
    await connection.execute("DELETE FROM loose")
    await connection.close()
    # Releasing to the pool resets the session: RESET ALL, CLOSE ALL, UNLISTEN *, advisory locks.
    async with asyncpg.create_pool(url, min_size=2, max_size=8) as pool:
        names = await asyncio.gather(*(one_of_many(pool, id) for id in range(1, 101)))
        print("pool", names)


asyncio.run(main())
