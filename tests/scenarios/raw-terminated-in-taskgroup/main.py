"""A report in a task group whose body shows a clock; the administrator ends the report."""
import asyncio
import os

import asyncpg


async def terminate_later(pid):
    await asyncio.sleep(0.2)
    admin = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await admin.execute("select pg_terminate_backend($1)", pid)
    await admin.close()


async def report():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    admin = asyncio.create_task(terminate_later(conn.get_server_pid()))
    await conn.fetch("select pg_sleep(5)")
    await admin


async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(report())
        while True:
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
