"""Slow statements are given up in an orderly way."""
import asyncio
import contextlib
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=1)


async def slow(session):
    await session.execute(text("select pg_sleep(5)"))


async def main():
    async with AsyncSession(engine) as session:
        try:
            async with asyncio.timeout(0.1):
                await slow(session)
        except TimeoutError:
            await session.rollback()
        assert await session.scalar(text("select 1")) == 1
    async with AsyncSession(engine) as session:
        task = asyncio.create_task(slow(session))
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await session.rollback()
        assert await session.scalar(text("select 2")) == 2
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1), AsyncSession(engine) as session:
            await slow(session)
    async with AsyncSession(engine) as session:
        assert await session.scalar(text("select 3")) == 3
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
