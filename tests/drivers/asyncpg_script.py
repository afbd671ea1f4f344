"""Operations of asyncpg, one line of outcome each.

Called as `asyncpg_script.py PORT DATABASE SEED`. The suite runs it directly and through the proxy, and compares line by line.
asyncpg speaks the extended protocol in binary, prepares everything, and caches what it prepared.
"""

import asyncio
import datetime
import decimal
import io
import json
import random
import sys

import asyncpg

PORT, DATABASE, SEED = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
OPERATIONS = []


def operation(function):
    OPERATIONS.append(function)
    return function


async def connect(**options):
    settings = {"application_name": "suite"} | options.pop("server_settings", {})
    connection = await asyncpg.connect(
        host="127.0.0.1", port=PORT, database=DATABASE, user="postgres", server_settings=settings, **options
    )
    return connection


def failure(error):
    if isinstance(error, asyncpg.PostgresError):
        return [type(error).__name__, error.sqlstate, error.severity, str(error), error.detail, error.hint, error.position]
    return [type(error).__name__, str(error)]


async def tried(awaitable):
    try:
        return plain(await awaitable)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError) as error:
        return failure(error)


def plain(value):
    if isinstance(value, asyncpg.Record):
        return dict(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


@operation
async def values_of_many_types():
    connection = await connect()
    yield plain(await connection.fetch("SELECT * FROM items WHERE id < $1 ORDER BY id", 6))
    yield plain(await connection.fetch("SELECT * FROM notes WHERE id < $1 ORDER BY id", 3))
    yield plain(await connection.fetch("SELECT * FROM moods ORDER BY id"))
    given = [
        ("int", 1), ("bigint", 2**40), ("float8", 1.5), ("numeric", decimal.Decimal("12.3400")), ("text", "text é"),
        ("bytea", b"\x00\xff"), ("bool", True), ("date", datetime.date(2024, 2, 29)),
        ("timestamptz", datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)),
        ("interval", datetime.timedelta(days=3, seconds=5)), ("int[]", [1, 2, None]), ("text[]", ["a", "b"]),
        ("jsonb", '{"a": [1]}'), ("mood", "happy"), ("pair", (1, "b")), ("positive", 3), ("mood[]", ["sad", None]),
    ]
    for name, value in given:
        yield name, await tried(connection.fetch(f"SELECT $1::{name} AS it", value)), await tried(
            connection.fetchval(f"SELECT pg_typeof($1::{name})::text", None)
        )
    yield await tried(connection.fetch("SELECT $1::int", "not a number"))
    yield await tried(connection.fetch("SELECT $1::positive", -1))
    await connection.close()


@operation
async def prepared_statements():
    connection = await connect()
    statement = await connection.prepare("SELECT id, name FROM items WHERE id < $1 ORDER BY id")
    yield [(a.name, a.type.name) for a in statement.get_attributes()], [p.name for p in statement.get_parameters()]
    yield statement.get_statusmsg(), plain(await statement.fetch(4)), statement.get_statusmsg()
    yield plain(await statement.fetchrow(2)), await statement.fetchval(3, column=1)
    named = await connection.prepare("SELECT $1::int * 2", name="mine")
    yield await named.fetchval(21), named.get_name()
    yield await tried(connection.prepare("SELECT 1", name="mine"))
    yield await named.fetchval(4)
    yield await tried(connection.prepare("selec 1"))
    yield await tried(connection.prepare("SELECT * FROM nowhere"))
    yield await tried(statement.fetch(1, 2))
    yield await statement.explain(3) is not None
    yield await tried(connection.executemany("INSERT INTO items (id, name) VALUES ($1, $2)", [(6000, "a"), (6001, "b"), (1, "x")]))
    yield await connection.fetchval("SELECT count(*) FROM items WHERE id >= 6000")
    await connection.executemany("INSERT INTO items (id, name) VALUES ($1, $2)", [(6000 + n, str(n)) for n in range(500)])
    yield await connection.fetchval("SELECT count(*) FROM items WHERE id >= 6000")
    yield await connection.execute("DELETE FROM items WHERE id >= $1", 6000)
    many = await connection.fetchmany("SELECT $1::int + 1", [(n,) for n in range(10)])
    yield plain(many)
    for n in range(150):
        await connection.fetchval(f"SELECT {n} + $1::int", 1)
    yield await connection.fetchval("SELECT 7 + $1::int", 1)
    await connection.execute("CREATE TABLE widened (a int)")
    await connection.execute("INSERT INTO widened VALUES (1)")
    yield plain(await connection.fetch("SELECT * FROM widened WHERE a = $1", 1))
    await connection.execute("ALTER TABLE widened ADD COLUMN b text DEFAULT 'b'")
    yield await tried(connection.fetch("SELECT * FROM widened WHERE a = $1", 1))
    yield await tried(connection.fetch("SELECT * FROM widened WHERE a = $1", 1))
    await connection.execute("DROP TABLE widened")
    yield await tried(connection.fetch("SELECT * FROM widened WHERE a = $1", 1))
    await connection.execute("DEALLOCATE ALL")
    yield await tried(statement.fetch(4))
    await connection.close()
    bare = await connect(statement_cache_size=0)
    for n in range(5):
        yield await bare.fetchval("SELECT name FROM items WHERE id = $1", n + 1)
    yield await tried(bare.fetch("SELECT 1 / $1::int", 0))
    yield await bare.fetchval("SELECT 1 / $1::int", 1)
    await bare.close()


@operation
async def transactions():
    connection = await connect()
    yield connection.is_in_transaction()
    async with connection.transaction():
        yield connection.is_in_transaction(), await connection.fetchval("SELECT count(*) FROM items")
        await connection.execute("INSERT INTO items VALUES (6100, 'one')")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO items VALUES (6101, 'two')")
                await connection.fetch("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError as error:
            yield failure(error)
        yield plain(await connection.fetch("SELECT id FROM items WHERE id >= 6100"))
    yield plain(await connection.fetch("SELECT id, name FROM items WHERE id >= 6100"))
    yield await connection.execute("DELETE FROM items WHERE id >= 6100")
    for isolation in ("read_uncommitted", "read_committed", "repeatable_read", "serializable"):
        async with connection.transaction(isolation=isolation, readonly=True):
            yield isolation, plain(
                await connection.fetchrow(
                    "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), count(*) FROM items"
                )
            )
            yield await tried(connection.execute("SELECT count(*) FROM items"))
    async def writes():
        async with connection.transaction(readonly=True):
            await connection.execute("DELETE FROM items")
    yield await tried(writes())
    yield connection.is_in_transaction()
    transaction = connection.transaction(deferrable=True, isolation="serializable", readonly=True)
    await transaction.start()
    yield await connection.fetchval("SELECT sum(quantity) FROM items")
    await transaction.rollback()
    yield await connection.execute("BEGIN"), await tried(connection.fetch("SELECT * FROM nowhere"))
    yield await tried(connection.fetch("SELECT 1")), await connection.execute("COMMIT")
    yield await connection.execute("SELECT 1; SELECT 2"), await tried(connection.execute("SELECT 1; SELECT 1 / 0"))
    yield await tried(connection.fetch(""))
    await connection.close()


@operation
async def cursors():
    connection = await connect()
    async with connection.transaction():
        yield [record["id"] async for record in connection.cursor("SELECT id FROM items ORDER BY id", prefetch=7)][-3:]
        cursor = await connection.cursor("SELECT id, name FROM items ORDER BY id")
        yield plain(await cursor.fetch(2)), plain(await cursor.fetchrow()), await cursor.forward(10), plain(await cursor.fetchrow())
        other = await connection.cursor("SELECT id FROM items WHERE id > $1 ORDER BY id", 100)
        yield plain(await other.fetchrow()), plain(await cursor.fetchrow()), await connection.fetchval("SELECT count(*) FROM items")
        yield plain(await other.fetch(3)), len(await cursor.fetch(1000)), plain(await cursor.fetchrow())
        statement = await connection.prepare("SELECT n FROM generate_series(1, $1::int) n")
        yield [record["n"] async for record in statement.cursor(120, prefetch=50)][-1]
    async def outside():
        return await connection.cursor("SELECT 1")
    yield await tried(outside())
    async def failing():
        async with connection.transaction():
            return [r async for r in connection.cursor("SELECT 1 / (60 - id) FROM items ORDER BY id", prefetch=50)]
    yield await tried(failing())
    yield await connection.fetchval("SELECT 1")
    await connection.close()


@operation
async def copies():
    connection = await connect()
    records = [(7000 + n, f"copied {n}", n) for n in range(3000)]
    yield await connection.copy_records_to_table("items", records=records, columns=["id", "name", "quantity"])
    yield plain(await connection.fetchrow("SELECT count(*), sum(quantity) FROM items WHERE id >= 7000"))
    out = io.BytesIO()
    yield await connection.copy_from_query("SELECT id, name FROM items WHERE id >= $1 ORDER BY id", 7000, output=out), len(out.getvalue())
    out = io.BytesIO()
    yield await connection.copy_from_table("items", columns=["id"], output=out, format="csv"), len(out.getvalue())
    yield await connection.execute("DELETE FROM items WHERE id >= 7000")
    yield await connection.copy_to_table("items", source=io.BytesIO(b"7100\tx\n7101\ty\n"), columns=["id", "name"])
    yield await tried(connection.copy_to_table("items", source=io.BytesIO(b"bad\tx\n"), columns=["id", "name"]))
    yield await tried(connection.copy_records_to_table("items", records=[(1, "again", 1)], columns=["id", "name", "quantity"]))
    yield await tried(connection.copy_to_table("nowhere", source=io.BytesIO(b"1\n")))
    yield await tried(connection.copy_from_query("SELECT 1 / (100 - id) FROM items ORDER BY id", output=io.BytesIO()))
    async def giving_up():
        async def source():
            yield b"7200\tx\n"
            raise asyncpg.InterfaceError("the client gave up")
        await connection.copy_to_table("items", source=source(), columns=["id", "name"])
    yield await tried(giving_up())
    yield await connection.fetchval("SELECT count(*) FROM items WHERE id >= 7000")
    yield await connection.execute("DELETE FROM items WHERE id >= 7000")
    await connection.close()


@operation
async def listening_and_notices():
    listener, speaker = await connect(), await connect()
    heard, notices, done = [], [], asyncio.Event()

    def hear(_, __, channel, payload):
        heard.append((channel, payload))
        if payload == "last":
            done.set()

    speaker.add_log_listener(lambda _, message: notices.append((message.severity, message.sqlstate, message.message, message.detail)))
    await listener.add_listener("suite", hear)
    yield await speaker.execute("NOTIFY suite, 'first'")
    async with speaker.transaction():
        await speaker.execute("SELECT pg_notify('suite', $1)", "second")
    await speaker.execute("NOTIFY suite, 'last'")
    await asyncio.wait_for(done.wait(), 10)
    yield heard
    yield await listener.fetchval("SELECT count(*) FROM items"), await speaker.fetchval("SELECT remark('seen')")
    yield notices
    await listener.remove_listener("suite", hear)
    await listener.close()
    await speaker.close()


@operation
async def settings():
    connection = await connect(server_settings={"timezone": "Asia/Tokyo", "search_path": "other, public"})
    names = ["TimeZone", "DateStyle", "client_encoding", "application_name"]
    def reported():
        found = connection.get_settings()
        return [(name, getattr(found, name)) for name in names]
    yield reported(), await connection.fetchval("SELECT seven FROM elsewhere")
    yield await connection.execute("SET timezone = 'Europe/Rome'"), reported()
    yield await connection.fetchval("SELECT '2024-07-01 12:00+00'::timestamptz::text")
    await connection.reset()
    yield reported(), await connection.fetchval("SHOW timezone")
    async with connection.transaction():
        await connection.execute("SET LOCAL timezone = 'UTC'")
        yield reported(), await connection.fetchval("SELECT '2024-07-01 12:00+00'::timestamptz::text")
    yield reported()
    yield await tried(connection.execute("SET nonsense = 1")), await tried(connection.fetch("SHOW nonsense"))
    await connection.execute("CREATE TEMP TABLE mine AS SELECT 1 AS x")
    yield await connection.fetchval("SELECT x FROM mine"), await connection.fetchval("SELECT count(*) FROM public.items")
    await connection.reset()
    yield await tried(connection.fetchval("SELECT x FROM mine")), reported()
    yield await tried(connect(server_settings={"nonsense": "1"})), await tried(connect(server_settings={"work_mem": "much"}))
    yield str(connection.get_server_version()), connection.get_server_pid() > 0
    await connection.close()


@operation
async def cancelling_and_recovery():
    connection = await connect()
    for timeout in (0.2, 0.3):
        yield await tried(connection.fetch("SELECT pg_sleep(30)", timeout=timeout))
        yield await connection.fetchval("SELECT 1")
    task = asyncio.ensure_future(connection.fetch("SELECT count(*) FROM generate_series(1, 1000000000)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        yield "cancelled"
    yield await connection.fetchval("SELECT 2")
    async with connection.transaction():
        yield await tried(connection.fetch("SELECT pg_sleep(30)", timeout=0.2))
        yield await tried(connection.fetch("SELECT 1"))
    await connection.execute("SET statement_timeout = '500ms'")
    yield await tried(connection.fetch("SELECT pg_sleep(30)"))
    await connection.close()


@operation
async def pools():
    async with asyncpg.create_pool(
        host="127.0.0.1", port=PORT, database=DATABASE, user="postgres", min_size=2, max_size=5
    ) as pool:
        async def work(n):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(f"SET LOCAL app.n = '{n}'")
                count = await connection.fetchval("SELECT count(*) FROM items WHERE id <= $1", n)
                return count, await connection.fetchval("SELECT current_setting('app.n')")
        yield await asyncio.gather(*(work(n) for n in range(40)))


@operation
async def large_and_wide():
    connection = await connect()
    yield await connection.fetchval("SELECT length($1::text)", "x" * 3_000_000)
    yield [len(record[0]) for record in await connection.fetch("SELECT repeat('é', 1000000) FROM generate_series(1, 3)")]
    yield sum(await connection.fetchrow("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600))))
    yield sum(record["n"] for record in await connection.fetch("SELECT n, md5(n::text) FROM generate_series(1, 50000) n"))
    await connection.close()


STATEMENTS = [
    ("SELECT count(*), sum(quantity) FROM items", 0),
    ("SELECT name FROM items WHERE id = $1", 1),
    ("SELECT quantity, count(*) FROM items WHERE id < $1 GROUP BY quantity ORDER BY quantity", 1),
    ("UPDATE items SET quantity = quantity + 1 WHERE id = $1 RETURNING quantity", 1),
    ("INSERT INTO items (id, name) VALUES ($1 + 8000, 'random') ON CONFLICT DO NOTHING RETURNING id", 1),
    ("DELETE FROM items WHERE id = $1 + 8000 RETURNING id", 1),
    ("SELECT 10 / ($1 - 5)", 1),
    ("SELECT fail('P0001')", 0),
    ("SET timezone = 'Europe/Rome'", 0),
    ("RESET timezone", 0),
    ("SELECT current_setting('timezone'), '2024-07-01 12:00+00'::timestamptz::text", 0),
    ("SELECT * FROM by_quantity ORDER BY quantity", 0),
]


@operation
async def drawn_from_a_seed():
    draw = random.Random(SEED)
    connection = await connect()
    open_ = []
    for _ in range(300):
        chance = draw.random()
        if chance < 0.1 and len(open_) < 3:
            transaction = connection.transaction()
            await transaction.start()
            open_.append(transaction)
        elif chance < 0.2 and open_:
            transaction = open_.pop()
            yield await tried(transaction.rollback() if draw.random() < 0.5 else transaction.commit())
            if transaction._state.name != "COMMITTED" and transaction._state.name != "ROLLEDBACK":
                await connection.execute("ROLLBACK")
                open_.clear()
        statement, arguments = draw.choice(STATEMENTS)
        given = [draw.randrange(10)] * arguments
        yield statement, await tried(connection.fetch(statement, *given)), connection.is_in_transaction()
        if connection.is_in_transaction() and not open_:
            await connection.execute("ROLLBACK")
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")
    yield await connection.execute("DELETE FROM items WHERE id >= 8000") != ""
    await connection.close()


async def main():
    for function in OPERATIONS:
        try:
            step = 0
            async for outcome in function():
                print(json.dumps([function.__name__, step, outcome], default=repr), flush=True)
                step += 1
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            print(json.dumps([function.__name__, "ended with", failure(error)], default=repr), flush=True)
    print("done", flush=True)


asyncio.run(main())
