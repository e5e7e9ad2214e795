"""An import in several steps; an administrator ends its backend between two of them."""
import asyncio
import os

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def terminate(pid):
    admin = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await admin.execute("select pg_terminate_backend($1)", pid)
    await admin.close()
    await asyncio.sleep(0.2)


async def import_all():
    async with AsyncSession(engine) as session, session.begin():
        pid = await session.scalar(text("select pg_backend_pid()"))
        print("step 1")
        await terminate(pid)
        await session.execute(text("select 2"))
        print("step 2")


if __name__ == "__main__":
    asyncio.run(import_all())
