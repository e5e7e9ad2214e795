"""Loads two tables, each in a uvloop of its own."""
import os

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


async def rows(number):
    async with Session() as session:
        return len((await session.execute(text("select * from generate_series(1, cast(:n as integer))"), {"n": number})).all())


def load(number):
    print("loaded", uvloop.run(rows(number)))


if __name__ == "__main__":
    load(3)
    load(5)
