"""A worker in a task group; the group's own body sleeps."""
import asyncio
import os

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def worker():
    async with engine.connect() as conn:
        pid = await conn.scalar(text("select pg_backend_pid()"))
        admin = await asyncpg.connect(os.environ["SCENARIO_DSN"])
        await admin.execute("select pg_terminate_backend($1)", pid)
        await admin.close()
        await asyncio.sleep(0.2)
        await conn.execute(text("select 2"))


async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(worker())
        await asyncio.sleep(10)


if __name__ == "__main__":
    asyncio.run(main())
