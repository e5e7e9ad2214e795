"""Two pollers on one connection, in a group whose body waits for a signal."""
import asyncio
import os

import asyncpg


async def poll(conn, what):
    while True:
        await conn.fetchval("select length($1) from pg_sleep(0.05)", what)


async def main():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(poll(conn, "orders"))
            group.create_task(poll(conn, "invoices"))
            await asyncio.Event().wait()
    finally:
        conn.terminate()


if __name__ == "__main__":
    asyncio.run(main())
