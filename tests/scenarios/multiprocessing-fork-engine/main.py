"""The parent counts the work, a child does it."""
import asyncio
import multiprocessing
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def count():
    async with AsyncSession(engine) as session:
        return await session.scalar(text("select count(*) from pg_type"))


def work():
    print("child counted", asyncio.run(count()))


def main():
    print("parent ready", asyncio.run(count()))
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(20)
    print("child ended with", child.exitcode)
    raise SystemExit(child.exitcode)


if __name__ == "__main__":
    main()
