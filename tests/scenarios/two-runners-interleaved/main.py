"""One runner for reading, one for writing."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
reader, writer = asyncio.Runner(), asyncio.Runner()


async def query(statement):
    async with engine.connect() as conn:
        return await conn.scalar(text(statement))


def read():
    print("read", reader.run(query("select 1")))


def write():
    print("wrote", writer.run(query("select 2")))


if __name__ == "__main__":
    read()
    write()
