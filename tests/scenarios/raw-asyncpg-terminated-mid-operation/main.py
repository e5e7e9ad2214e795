"""A long report; the administrator ends it."""
import asyncio
import os

import asyncpg


async def terminate_later(pid):
    await asyncio.sleep(0.3)
    admin = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await admin.execute("select pg_terminate_backend($1)", pid)
    await admin.close()


async def report():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    pid = conn.get_server_pid()
    admin = asyncio.create_task(terminate_later(pid))
    try:
        print(await conn.fetch("select pg_sleep(5)"))
    finally:
        await admin


if __name__ == "__main__":
    asyncio.run(report())
