"""What a Python application does with psycopg 3. Prints `ok`; anything else is a failure."""

import datetime
import decimal
import sys
import uuid

import psycopg

UTC = datetime.timezone.utc
dsn = f"host=127.0.0.1 port={sys.argv[1]} user=meridian dbname=meridian"

with psycopg.connect(dsn) as connection:
    # psycopg opens a transaction by itself; the block commits it.
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE m (time timestamptz NOT NULL, device text, value float8, amount numeric(10,2),"
            " flag bool, id uuid, day date, data bytea, tags int[])"
        )
        cursor.execute("SELECT create_hypertable('m', 'time')")

rows = [
    (
        datetime.datetime(2024, 1, 1, tzinfo=UTC) + datetime.timedelta(days=number),
        f"d{number % 3}",
        number / 4,
        decimal.Decimal("1.25") * number,
        number % 2 == 0,
        uuid.UUID(int=number),
        datetime.date(2024, 1, 1),
        bytes([number]),
        [number, number + 1],
    )
    for number in range(30)
]

for binary in (False, True):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.cursor(binary=binary)
        with connection.transaction():
            cursor.executemany("INSERT INTO m VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", rows)
        cursor.execute("SELECT * FROM m ORDER BY time")
        found = cursor.fetchall()
        assert found == rows, (binary, found[:2], rows[:2])
        cursor.execute("SELECT count(*), sum(value) FROM m WHERE device = %s AND time >= %s", ("d1", rows[10][0]))
        assert cursor.fetchone() == (7, sum(row[2] for row in rows[10:] if row[1] == "d1"))

        try:
            with connection.transaction():
                cursor.execute("INSERT INTO m (time) VALUES (now())")
                cursor.execute("SELECT 1 / 0")
            raise AssertionError("the division passed")
        except psycopg.errors.DivisionByZero:
            pass
        cursor.execute("SELECT count(*) FROM m")
        assert cursor.fetchone() == (30,)

        cursor.execute("DROP TABLE m")
        cursor.execute(
            "CREATE TABLE m (time timestamptz NOT NULL, device text, value float8, amount numeric(10,2),"
            " flag bool, id uuid, day date, data bytea, tags int[])"
        )
        cursor.execute("SELECT create_hypertable('m', 'time')")

with psycopg.connect(dsn, autocommit=True) as connection:
    cursor = connection.cursor()
    for form in ("", " WITH (FORMAT binary)"):
        with cursor.copy("COPY m FROM STDIN" + form) as copy:
            if form:
                copy.set_types(["timestamptz", "text", "float8", "numeric", "bool", "uuid", "date", "bytea", "int4[]"])
            for row in rows:
                copy.write_row(row)
    cursor.execute("SELECT count(*), count(DISTINCT time) FROM m")
    assert cursor.fetchone() == (60, 30), "COPY in text and binary"
    with cursor.copy("COPY (SELECT device, value FROM m ORDER BY time, value LIMIT 2) TO STDOUT") as copy:
        copy.set_types(["text", "float8"])
        assert list(copy.rows()) == [("d0", 0.0), ("d0", 0.0)]

    # A server-side prepared statement, used often enough that psycopg prepares it.
    for number in range(10):
        cursor.execute("SELECT value FROM m WHERE id = %s LIMIT 1", (uuid.UUID(int=number),))
        assert cursor.fetchone() == (number / 4,)

    try:
        cursor.execute("SELECT * FROM nowhere")
        raise AssertionError("the table does not exist")
    except psycopg.errors.UndefinedTable as error:
        assert error.sqlstate == "42P01"

print("ok")
