"""A request opens its session lazily in a task; the end of the request closes it at once."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def get_session():
    session = AsyncSession(engine)
    try:
        yield session
    finally:
        await session.close()


async def resolve(session):
    return await session.scalar(text("select 1 from pg_sleep(0.5)"))


async def request():
    provider = get_session()
    session = await anext(provider)
    field = asyncio.create_task(resolve(session))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await provider.aclose()
    print(await field)


if __name__ == "__main__":
    asyncio.run(request())
