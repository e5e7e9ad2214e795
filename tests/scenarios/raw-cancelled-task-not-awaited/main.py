"""A watcher is cancelled, and nobody waits for its end before the connection is used again."""
import asyncio
import os

import asyncpg


async def watch(connection):
    await connection.execute("select pg_sleep(1)")


async def main():
    connection = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    watcher = asyncio.create_task(watch(connection))
    await asyncio.sleep(0.05)
    watcher.cancel()
    print(await connection.fetchval("select 1"))


if __name__ == "__main__":
    asyncio.run(main())
