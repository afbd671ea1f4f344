"""The console by two drivers: what its statements answer in the simple and in the extended protocol, one line each.

Called as `console_script.py PORT`. A line holds the driver, the protocol, the statement, and the columns with the rows, or the error.
Where rows tell of the moment, only how many there are is told, or that there are some.
"""

import asyncio
import json
import sys

import asyncpg
import psycopg

PORT = int(sys.argv[1])
# Columns whose values stay the same from one statement to the next; None stands for all.
STATEMENTS = {
    "SHOW NODES": ["address", "role", "usable", "why_not", "timeline", "weight"],
    "SHOW POOLS": ["node", "database", "user", "size"],
    "SHOW CLIENTS": [],
    "SHOW CACHE": ["database", "tables", "bytes", "query"],
    "SHOW CACHE SUMMARY": None,
    "SHOW STATS": ["name"],
    "SHOW DATABASES": ["database", "problem"],
    "SHOW VERSION": None,
    "HELP": None,
    "SELECT 1": None,
    "SHOW server_version": None,
    "SHOW NODS": None,
    "SELECT count(*) FROM items": None,
    "FLUSH nowhere": None,
}


def tell(driver, protocol, statement, columns, rows):
    kept = STATEMENTS[statement]
    at = [number for number, name in enumerate(columns) if kept is None or name in kept]
    told = sorted([row[number] for number in at] for row in rows) if at else len(rows) > 0
    print(json.dumps([driver, protocol, statement, columns, told]), flush=True)


def refused(driver, protocol, statement, error):
    print(json.dumps([driver, protocol, statement, "refused", error.sqlstate, str(error).splitlines()[0]]), flush=True)


def by_psycopg():
    with psycopg.connect(host="127.0.0.1", port=PORT, dbname="pgladder", user="postgres", autocommit=True) as console:
        for statement in STATEMENTS:
            for protocol, options in (("simple", {}), ("extended", {"prepare": True}), ("extended", {"binary": True})):
                try:
                    cursor = console.execute(statement, **options)
                    columns = [column.name for column in cursor.description]
                    tell("psycopg", protocol, statement, columns, [list(row) for row in cursor])
                except psycopg.Error as error:
                    refused("psycopg", protocol, statement, error)
    with psycopg.connect(host="127.0.0.1", port=PORT, dbname="pgladder", user="postgres") as console:
        with console.transaction():
            console.execute("SHOW VERSION")
            states = [console.info.transaction_status.name]
        states.append(console.info.transaction_status.name)
    print(json.dumps(["psycopg", "block", states]), flush=True)


async def by_asyncpg():
    console = await asyncpg.connect(host="127.0.0.1", port=PORT, database="pgladder", user="postgres")
    for statement in STATEMENTS:
        try:
            prepared = await console.prepare(statement)
            columns = [column.name for column in prepared.get_attributes()]
            rows = await prepared.fetch()
            tell("asyncpg", "extended", statement, columns, [list(row.values()) for row in rows])
        except asyncpg.PostgresError as error:
            refused("asyncpg", "extended", statement, error)
        try:
            tag = await console.execute(statement)
            print(json.dumps(["asyncpg", "simple", statement, tag.split()[0]]), flush=True)
        except asyncpg.PostgresError as error:
            refused("asyncpg", "simple", statement, error)
    await console.reset()
    await console.close()


by_psycopg()
asyncio.run(by_asyncpg())
print("done", flush=True)
