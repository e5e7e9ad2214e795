"""A synchronous shell around an asynchronous repository."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
session = AsyncSession(engine)


async def names():
    return (await session.execute(text("select rolname from pg_roles limit 2"))).scalars().all()


def show():
    print("names", asyncio.run(names()))


def tidy_up():
    asyncio.run(session.close())


if __name__ == "__main__":
    show()
    tidy_up()
