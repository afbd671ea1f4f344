"""Operations of psycopg 3, one line of outcome each: values, types, tags, errors with all their fields, notices, parameters.

Called as `psycopg_script.py PORT DATABASE SEED`. The suite runs it directly and through the proxy, and compares line by line.
"""

import datetime
import decimal
import json
import random
import sys
import threading

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

PORT, DATABASE, SEED = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
OPERATIONS = []


def operation(function):
    OPERATIONS.append(function)
    return function


def connect(**options):
    connection = psycopg.connect(
        host="127.0.0.1", port=PORT, dbname=DATABASE, user="postgres", application_name="suite", **options
    )
    connection.notices = []
    connection.add_notice_handler(
        lambda notice: connection.notices.append(
            (notice.severity, notice.sqlstate, notice.message_primary, notice.message_detail, notice.message_hint)
        )
    )
    return connection


def failure(error):
    fields = error.diag
    return [
        type(error).__name__,
        error.sqlstate,
        fields.severity,
        fields.message_primary,
        fields.message_detail,
        fields.message_hint,
        fields.statement_position,
        fields.context,
        fields.table_name,
        fields.constraint_name,
    ] if error.sqlstate else [type(error).__name__, str(error)]


def tried(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except psycopg.Error as error:
        return failure(error)


def rows(cursor):
    return [cursor.statusmessage, cursor.rowcount, columns(cursor), cursor.fetchall() if cursor.description else None]


def columns(cursor):
    return [(column.name, column.type_code, column.display_size, column.precision) for column in cursor.description or []]


def parameters(connection):
    names = ["TimeZone", "DateStyle", "client_encoding", "application_name", "standard_conforming_strings", "session_authorization"]
    return [(name, connection.info.parameter_status(name)) for name in names]


def status(connection):
    return TransactionStatus(connection.info.transaction_status).name


@operation
def values_in_text_and_binary():
    with connect() as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            yield rows(cursor.execute("SELECT id, name, quantity, price, added FROM items WHERE id < %s ORDER BY id", [6]))
            yield rows(cursor.execute("SELECT tags, extra, body FROM notes WHERE id = ANY(%s) ORDER BY id", [[1, 2, 3]]))
            yield rows(cursor.execute("SELECT mood, pair, many FROM moods ORDER BY id"))
            given = [
                1, 2**40, 1.5, decimal.Decimal("12.3400"), "text é", b"\x00\xff", None, True,
                datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc),
                datetime.timedelta(days=3, seconds=5), [1, 2, None], ["a", "b"], Jsonb({"a": [1]}),
            ]
            for value in given:
                yield tried(lambda: rows(cursor.execute("SELECT %s AS it, pg_typeof(%s)", [value, value])))
                yield tried(lambda: rows(cursor.execute("SELECT %b AS it", [value])))


@operation
def parameters_at_login():
    with connect() as connection:
        yield parameters(connection)
        yield connection.info.server_version, connection.info.encoding, connection.info.user
    with connect(options="-c timezone=Asia/Tokyo -c datestyle=German", client_encoding="LATIN1") as connection:
        yield parameters(connection)
        yield rows(connection.execute("SELECT '2024-07-01 12:00+00'::timestamptz::text, length('é')"))
        connection.execute("RESET timezone")
        yield parameters(connection)
        connection.rollback()
        yield parameters(connection)
    yield tried(lambda: connect(options="-c nonsense=1"))
    yield tried(lambda: connect(options="-c work_mem=much"))


@operation
def prepared_statements():
    with connect(autocommit=True) as connection:
        connection.prepare_threshold = 0
        for round_ in range(4):
            for limit in (3, 5):
                yield rows(connection.execute("SELECT count(*), min(name) FROM items WHERE id < %s", [limit]))
                yield rows(connection.execute("SELECT name FROM items WHERE id = %s", [limit]))
        connection.prepared_max = 3
        for n in range(12):
            yield rows(connection.execute(sql.SQL("SELECT {} + %s").format(sql.Literal(n)), [1]))
        yield tried(lambda: rows(connection.execute("SELECT 1 / %s", [0])))
        yield rows(connection.execute("SELECT 1 / %s", [1]))
        connection.execute("CREATE TABLE widened (a int)")
        connection.execute("INSERT INTO widened VALUES (1)")
        yield rows(connection.execute("SELECT * FROM widened WHERE a = %s", [1]))
        connection.execute("ALTER TABLE widened ADD COLUMN b text DEFAULT 'b'")
        yield tried(lambda: rows(connection.execute("SELECT * FROM widened WHERE a = %s", [1])))
        yield tried(lambda: rows(connection.execute("SELECT * FROM widened WHERE a = %s", [1])))
        connection.execute("DROP TABLE widened")
        yield tried(lambda: rows(connection.execute("SELECT * FROM widened WHERE a = %s", [1])))
        connection.execute("DEALLOCATE ALL")
        yield rows(connection.execute("SELECT name FROM items WHERE id = %s", [3], prepare=False))
    with connect() as connection:
        for n in range(9):
            yield rows(connection.execute("SELECT %s::int * 2", [n]))
            if n == 6:
                yield tried(lambda: connection.execute("SELECT 1 / 0"))
                connection.rollback()


@operation
def transactions():
    with connect() as connection:
        yield status(connection)
        yield rows(connection.execute("SELECT count(*) FROM items"))
        yield status(connection)
        yield tried(lambda: connection.execute("SELECT fail('P0001')"))
        yield status(connection)
        yield tried(lambda: connection.execute("SELECT 1"))
        connection.rollback()
        yield status(connection)
        with connection.transaction():
            connection.execute("INSERT INTO items VALUES (1001, 'one')")
            try:
                with connection.transaction():
                    connection.execute("INSERT INTO items VALUES (1002, 'two')")
                    raise psycopg.Rollback
            except psycopg.Rollback:
                yield "rolled back"
            yield rows(connection.execute("SELECT id FROM items WHERE id > 1000"))
            with connection.transaction(savepoint_name="named"):
                connection.execute("UPDATE items SET name = 'uno' WHERE id = 1001")
            with connection.transaction(force_rollback=True):
                connection.execute("DELETE FROM items WHERE id = 1001")
        yield rows(connection.execute("SELECT id, name FROM items WHERE id > 1000"))
        connection.execute("DELETE FROM items WHERE id > 1000")
        connection.commit()
        yield rows(connection.execute("SELECT count(*), sum(quantity) FROM items"))
    with connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.read_only = True
        yield rows(connection.execute("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"))
        yield tried(lambda: connection.execute("DELETE FROM items"))
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = None
        connection.deferrable = True
        yield rows(connection.execute("SELECT current_setting('transaction_isolation'), count(*) FROM items"))
        connection.rollback()
    with connect() as connection:
        cursor = connection.execute("SET timezone = 'Asia/Tokyo'")
        yield parameters(connection)
        connection.rollback()
        yield parameters(connection)
        yield rows(connection.execute("SHOW timezone"))
    with connect(autocommit=True) as connection:
        yield tried(lambda: connection.execute("SAVEPOINT a"))
        connection.execute("BEGIN")
        yield status(connection)
        yield rows(connection.execute("SELECT count(*) FROM items"))
        yield tried(lambda: connection.execute("SELECT 1 / 0"))
        yield status(connection)
        yield connection.execute("COMMIT").statusmessage
        yield status(connection)


@operation
def pipelines():
    with connect(autocommit=True) as connection:
        with connection.pipeline():
            first = connection.execute("SELECT count(*) FROM items")
            second = connection.execute("SELECT name FROM items WHERE id = %s", [4])
            third = connection.execute("UPDATE items SET quantity = quantity WHERE id = %s RETURNING id", [4])
            yield rows(first), rows(second), rows(third)
            yield rows(connection.execute("SELECT sum(id) FROM items WHERE id < %s", [10]))
        def broken():
            with connection.pipeline() as pipeline:
                connection.execute("INSERT INTO items VALUES (1100, 'pipe')")
                connection.execute("SELECT 1 / 0")
                connection.execute("INSERT INTO items VALUES (1101, 'pipe')")
                pipeline.sync()
        yield tried(broken)
        yield rows(connection.execute("SELECT id FROM items WHERE id >= 1100"))
        yield status(connection)
        def several():
            with connection.pipeline() as pipeline:
                connection.execute("INSERT INTO items VALUES (1110, 'kept')")
                pipeline.sync()
                connection.execute("SELECT fail('23514')")
                pipeline.sync()
        yield tried(several)
        yield rows(connection.execute("SELECT id FROM items WHERE id >= 1100"))
        connection.execute("DELETE FROM items WHERE id >= 1100")
        with connection.pipeline():
            connection.execute("SET timezone = 'Europe/Rome'")
            shown = connection.execute("SHOW timezone")
            yield rows(shown)
        yield parameters(connection)
        with connection.pipeline(), connection.transaction():
            connection.execute("SET LOCAL timezone = 'UTC'")
            yield rows(connection.execute("SELECT '2024-07-01 12:00+00'::timestamptz::text"))
        with connection.pipeline():
            cursor = connection.cursor()
            cursor.executemany("SELECT %s::int + 1", [(n,) for n in range(20)], returning=True)
            found = []
            while True:
                found.append(cursor.fetchall())
                if not cursor.nextset():
                    break
            yield found
        with connection.pipeline():
            cursors = [connection.execute("SELECT repeat('x', %s)", [n * 1000]) for n in range(60)]
            yield [len(cursor.fetchone()[0]) for cursor in cursors]
    with connect() as connection:
        with connection.pipeline():
            connection.execute("INSERT INTO items VALUES (1120, 'in a transaction')")
            yield rows(connection.execute("SELECT count(*) FROM items"))
        connection.rollback()
        yield rows(connection.execute("SELECT count(*) FROM items"))


@operation
def cursors():
    with connect() as connection:
        with connection.cursor("named") as cursor:
            cursor.itersize = 7
            cursor.execute("SELECT id, name FROM items ORDER BY id")
            yield columns(cursor), cursor.fetchone(), cursor.fetchmany(3)
            yield sum(row[0] for row in cursor)
        with connection.cursor("scrolled", scrollable=True, binary=True) as cursor:
            cursor.execute("SELECT id FROM items WHERE id <= %s ORDER BY id", [50])
            cursor.scroll(10)
            yield cursor.fetchone()
            cursor.scroll(-5)
            yield cursor.fetchone()
            cursor.scroll(0, mode="absolute")
            yield len(cursor.fetchall())
        with connection.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT id FROM items ORDER BY id")
            connection.commit()
            yield cursor.fetchmany(2)
            yield rows(connection.execute("SELECT count(*) FROM items"))
            yield cursor.fetchmany(2)
        yield tried(lambda: connection.cursor("bad").execute("SELECT * FROM nowhere"))
        connection.rollback()
        cursor = connection.cursor(row_factory=dict_row)
        yield cursor.execute("SELECT id, name FROM items WHERE id = 1").fetchall()
        yield list(connection.cursor().stream("SELECT id FROM items WHERE id < %s ORDER BY id", [5]))
        cursor = psycopg.ClientCursor(connection)
        yield rows(cursor.execute("SELECT %s, %s; SELECT 2", ["it's", None]))
        yield cursor.nextset(), rows(cursor)
        cursor = psycopg.RawCursor(connection)
        yield rows(cursor.execute("SELECT $1::int + $2::int", [1, 2]))
        yield tried(lambda: rows(connection.execute("SELECT 1; SELECT 2", [])))
        connection.rollback()
        yield tried(lambda: rows(connection.execute("SELECT %s; SELECT 2", [1])))
        connection.rollback()
        yield tried(lambda: rows(connection.execute("")))
        yield tried(lambda: rows(connection.execute("; -- nothing")))


@operation
def copies():
    with connect() as connection:
        cursor = connection.cursor()
        with cursor.copy("COPY items (id, name, quantity) FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((2000 + n, f"copied {n}", n))
        yield cursor.rowcount, cursor.statusmessage
        yield rows(connection.execute("SELECT count(*), sum(quantity) FROM items WHERE id >= 2000"))
        with cursor.copy("COPY (SELECT id, name FROM items WHERE id >= 2000 ORDER BY id) TO STDOUT") as copy:
            yield sum(len(block) for block in copy)
        connection.rollback()
        with cursor.copy("COPY items (id, name) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((3000, "binary"))
        with cursor.copy("COPY (SELECT id, name FROM items WHERE id >= 3000) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            yield list(copy.rows())
        def malformed():
            with cursor.copy("COPY items (id, name) FROM STDIN") as copy:
                copy.write("not a number\tx\n")
        yield tried(malformed)
        yield status(connection)
        connection.rollback()
        def given_up():
            with cursor.copy("COPY items (id, name) FROM STDIN") as copy:
                copy.write("3001\tx\n")
                raise ValueError("the client gave up")
        try:
            given_up()
        except ValueError as error:
            yield str(error)
        yield status(connection)
        connection.rollback()
        def early():
            with cursor.copy("COPY (SELECT 1 / (100 - id) FROM items ORDER BY id) TO STDOUT") as copy:
                return [bytes(block) for block in copy]
        yield tried(early)
        connection.rollback()
        yield tried(lambda: cursor.copy("COPY nowhere FROM STDIN").__enter__())
        connection.rollback()
        yield rows(connection.execute("SELECT count(*) FROM items"))
    with connect(autocommit=True) as connection:
        with connection.cursor().copy("COPY items (id, name) FROM STDIN") as copy:
            copy.write("3100\talone\n")
        yield rows(connection.execute("SELECT count(*), max(id) FROM items"))
        connection.execute("DELETE FROM items WHERE id = 3100")


@operation
def notices_and_notifications():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        yield rows(speaker.execute("SELECT remark(%s)", ["one"])), speaker.notices
        listener.execute("LISTEN suite")
        speaker.execute("NOTIFY suite, 'first'")
        speaker.execute("SELECT pg_notify('suite', n::text) FROM generate_series(1, 5) n")
        heard = []
        for notification in listener.notifies(timeout=10, stop_after=6):
            heard.append((notification.channel, notification.payload))
        yield heard
        yield rows(listener.execute("SELECT count(*) FROM items"))
        listener.execute("UNLISTEN *")
        speaker.execute("NOTIFY suite, 'unheard'")
        yield [n.payload for n in listener.notifies(timeout=0.2)]
    with connect() as connection:
        connection.execute("LISTEN mine")
        connection.execute("NOTIFY mine, 'own'")
        connection.commit()
        yield [n.payload for n in connection.notifies(timeout=5, stop_after=1)]
        connection.execute("DO $$ BEGIN RAISE WARNING 'careful'; RAISE NOTICE 'look'; END $$")
        yield connection.notices


@operation
def session_state():
    with connect(autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE mine (x int)")
        connection.execute("INSERT INTO mine VALUES (1)")
        yield rows(connection.execute("SELECT count(*) FROM items")), rows(connection.execute("SELECT * FROM mine"))
        connection.execute("SET search_path = other, public")
        yield rows(connection.execute("SELECT seven FROM elsewhere"))
        connection.execute("SET ROLE pg_monitor")
        yield tried(lambda: rows(connection.execute("SELECT seven FROM other.elsewhere")))
        connection.execute("RESET ROLE")
        connection.execute("SELECT set_config('app.user', 'ann', false)")
        yield rows(connection.execute("SELECT current_setting('app.user')"))
        connection.execute("DISCARD ALL")
        yield tried(lambda: rows(connection.execute("SELECT * FROM mine")))
        yield rows(connection.execute("SHOW search_path"))
        yield parameters(connection)
    with connect() as connection:
        yield rows(connection.execute("SELECT nextval('counter')::int % 1"))
        yield rows(connection.execute("INSERT INTO notes (body) VALUES ('numbered') RETURNING id % 1"))
        # In one transaction: between two of them another client may have the connection, and draw there.
        yield rows(connection.execute("SELECT currval('notes_id_seq') = lastval()"))
        connection.execute("DELETE FROM notes WHERE body = 'numbered'")
    with connect(autocommit=True) as connection:
        yield tried(lambda: rows(connection.execute("SELECT lastval()")))


@operation
def large_and_wide():
    with connect() as connection:
        yield rows(connection.execute("SELECT length(%s)", ["x" * 3_000_000]))
        big = connection.execute("SELECT repeat('é', 1000000) FROM generate_series(1, 3)").fetchall()
        yield [len(row[0]) for row in big]
        wide = ", ".join(f"{n} AS c{n}" for n in range(1600))
        cursor = connection.execute(f"SELECT {wide}")
        yield len(cursor.description), sum(cursor.fetchone())
        yield rows(connection.execute("SELECT " + ", ".join(["%s::int"] * 500), list(range(500))))
        cursor = connection.execute("SELECT n, md5(n::text) FROM generate_series(1, 50000) n")
        yield sum(row[0] for row in cursor)


@operation
def cancelling():
    with connect(autocommit=True) as connection:
        for statement in ("SELECT pg_sleep(30)", "SELECT count(*) FROM generate_series(1, 1000000000)"):
            timer = threading.Timer(0.3, connection.cancel_safe)
            timer.start()
            yield tried(lambda: rows(connection.execute(statement)))
            timer.join()
            yield rows(connection.execute("SELECT 1"))
        connection.cancel_safe()
        yield rows(connection.execute("SELECT 2"))
        connection.execute("SET statement_timeout = '500ms'")
        yield tried(lambda: rows(connection.execute("SELECT pg_sleep(30)")))


STATEMENTS = [
    "SELECT count(*), sum(quantity) FROM items",
    "SELECT name FROM items WHERE id = %s",
    "SELECT quantity, count(*) FROM items WHERE id < %s GROUP BY quantity ORDER BY quantity",
    "UPDATE items SET quantity = quantity + 1 WHERE id = %s RETURNING quantity",
    "INSERT INTO items (id, name) VALUES (%s + 5000, 'random') ON CONFLICT DO NOTHING RETURNING id",
    "DELETE FROM items WHERE id = %s + 5000 RETURNING id",
    "SELECT 10 / (%s - 5)",
    "SELECT fail('P0001')",
    "SET timezone = 'Europe/Rome'",
    "SET LOCAL timezone = 'Asia/Tokyo'",
    "RESET timezone",
    "SELECT current_setting('timezone'), '2024-07-01 12:00+00'::timestamptz::text",
    "SELECT remark('random')",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "SELECT * FROM by_quantity ORDER BY quantity",
    "SELECT id FROM cheap ORDER BY id",
]


@operation
def drawn_from_a_seed():
    draw = random.Random(SEED)
    with connect() as connection:
        connection.prepare_threshold = 2
        for _ in range(300):
            chance = draw.random()
            if chance < 0.08:
                connection.commit()
            elif chance < 0.14:
                connection.rollback()
            elif chance < 0.18:
                connection.rollback()
                connection.autocommit = not connection.autocommit
            statement = draw.choice(STATEMENTS)
            given = [draw.randrange(10)] if "%s" in statement else None
            cursor = connection.cursor(binary=draw.random() < 0.3)
            yield statement, tried(lambda: rows(cursor.execute(statement, given))), status(connection)
            yield parameters(connection)[0], connection.notices[-1:]
        connection.rollback()
        connection.execute("DELETE FROM items WHERE id >= 5000")


def main():
    for number, function in enumerate(OPERATIONS):
        try:
            for step, outcome in enumerate(function()):
                print(json.dumps([function.__name__, step, outcome], default=repr), flush=True)
        except psycopg.Error as error:
            print(json.dumps([function.__name__, "ended with", failure(error)], default=repr), flush=True)
    print("done", flush=True)


main()
