"""psycopg 3 against the shop: prepared statements, transactions, COPY, pipelines. Prints what it saw."""

import datetime
import decimal
import sys
import uuid

import psycopg
from psycopg.rows import dict_row

url = sys.argv[1]


def prepared(connection):
    for id in (1, 2, 3, 42, 300):
        row = connection.execute("SELECT id, name, country FROM users WHERE id = %s", (id,), prepare=True).fetchone()
        print("user", row)
    # Automatic preparation begins with the fifth execution.
    for id in range(1, 12):
        total = connection.execute("SELECT sum(total) FROM orders WHERE user_id = %s", (id,)).fetchone()[0]
        assert total is None or isinstance(total, decimal.Decimal)
        print("total", id, total)
    binary = connection.cursor(binary=True, row_factory=dict_row)
    row = binary.execute("SELECT id, sku, price, attributes FROM products WHERE id = %s", (7,)).fetchone()
    assert isinstance(row["sku"], uuid.UUID) and isinstance(row["attributes"], dict), row
    print("product", row)
    rows = connection.execute("SELECT id, name FROM users WHERE id = ANY(%s)", ([5, 6, 7, 8],)).fetchall()
    print("several", sorted(rows))
    rows = connection.execute("SELECT id FROM users WHERE country = %s", ("no",)).fetchall()
    print("everywhere", sorted(rows))


def transactions(connection):
    with connection.transaction():
        connection.execute(
            "INSERT INTO users (id, email, name, country, created_at) VALUES (%s, %s, %s, %s, %s)",
            (500001, "psycopg@example.com", "Psy", "no", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)),
        )
        cursor = connection.cursor()
        cursor.executemany(
            "INSERT INTO orders (user_id, id, ship_to, total) VALUES (%s, %s, %s, %s)",
            [(500001, n, "no", decimal.Decimal("1.50") * n) for n in range(1, 6)],
        )
        try:
            with connection.transaction():  # a savepoint
                connection.execute("DELETE FROM orders WHERE user_id = %s", (500001,))
                connection.execute("SELECT 1 / 0 FROM users WHERE id = %s", (500001,))
        except psycopg.errors.DivisionByZero as error:
            print("undone", error.sqlstate)
    print("orders", connection.execute("SELECT count(*), sum(total) FROM orders WHERE user_id = 500001").fetchone())
    try:
        with connection.transaction():
            connection.execute("UPDATE users SET name = 'lost' WHERE id = 500001")
            raise psycopg.Rollback()
    finally:
        print("name", connection.execute("SELECT name FROM users WHERE id = 500001").fetchone())
    try:
        connection.execute("INSERT INTO users (id, email, name, country) VALUES (500001, 'x', 'x', 'no')")
    except psycopg.errors.UniqueViolation as error:
        print("refused", error.sqlstate, error.diag.constraint_name)


def copy(connection):
    cursor = connection.cursor()
    with cursor.copy("COPY notes (id, body) FROM STDIN") as copy:
        for id in range(1, 2001):
            copy.write_row((id, f"note {id}\twith a tab" if id % 7 else None))
    print("copied in", cursor.statusmessage)
    with cursor.copy("COPY (SELECT id, total FROM orders WHERE user_id = 500001 ORDER BY id) TO STDOUT") as copy:
        for row in copy.rows():
            print("copied out", row)
    with cursor.copy("COPY notes TO STDOUT (FORMAT binary)") as copy:
        print("binary", sum(len(data) for data in copy))
    print("notes", connection.execute("SELECT count(*), count(body), min(body) FROM notes").fetchone())


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("SELECT id, name FROM users WHERE id = %s", (id,)) for id in range(1, 21)]
        connection.execute("UPDATE users SET name = 'piped' WHERE id = %s", (500001,))
        print("piped", [cursor.fetchone() for cursor in cursors])
    print("name", connection.execute("SELECT name FROM users WHERE id = 500001").fetchone())


def server_cursor(connection):
    with connection.transaction(), connection.cursor("mine") as cursor:
        cursor.execute("SELECT id, line FROM orders JOIN order_items USING (user_id) WHERE user_id = 20 ORDER BY 1, order_id, 2")
        print("cursor", cursor.fetchmany(2), cursor.fetchall())


def notifications(connection):
    def hear(count):
        heard = [notify for notify in connection.notifies(timeout=10, stop_after=count)]
        numbers = {connection.info.backend_pid: "own", other.info.backend_pid: "other"}
        print("heard", [(numbers.get(notify.pid), notify.channel, notify.payload) for notify in heard])

    with psycopg.connect(url, autocommit=True) as other:
        connection.execute("LISTEN news")
        other.execute("NOTIFY news, 'one'")
        hear(1)
        with connection.transaction():
            other.execute("SELECT pg_notify('news', %s)", ("two",))
            connection.execute("NOTIFY news, 'three'")
        hear(2)
        connection.execute("UNLISTEN *")


with psycopg.connect(url, autocommit=True, application_name="psycopg") as connection:
    prepared(connection)
    notifications(connection)
    transactions(connection)
    copy(connection)
    pipeline(connection)
    server_cursor(connection)
    connection.execute("DELETE FROM orders WHERE user_id = 500001")
    connection.execute("DELETE FROM users WHERE id = 500001")
    connection.execute("TRUNCATE notes RESTART IDENTITY")
    print("encoding", connection.info.encoding, connection.info.parameter_status("server_version"))
