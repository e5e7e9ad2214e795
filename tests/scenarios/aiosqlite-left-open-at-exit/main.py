"""A bot's cache in SQLite: the program ends while a statement is under way, and nobody waits for it."""
import asyncio
import time

import aiosqlite


async def main():
    connection = await aiosqlite.connect(":memory:")
    await connection.create_function("pause", 0, lambda: time.sleep(0.3))
    print(await (await connection.execute("select 42")).fetchone())
    task = asyncio.create_task(connection.execute("select pause()"))
    await asyncio.sleep(0.05)
    return connection, task


if __name__ == "__main__":
    kept = asyncio.run(main())
    time.sleep(0.5)
