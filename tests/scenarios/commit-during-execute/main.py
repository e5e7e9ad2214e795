"""Import job: a heartbeat commits every so often on the session on which the long statement runs."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def summarise(session):
    await session.execute(text("select pg_sleep(0.6)"))


async def heartbeat(session):
    await asyncio.sleep(0.2)
    conn = await session.connection()
    await conn.commit()


async def job():
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        try:
            await asyncio.gather(summarise(session), heartbeat(session))
        finally:
            await asyncio.sleep(0.6)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(job())
