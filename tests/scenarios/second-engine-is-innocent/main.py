"""One engine per tenant; the second step disposes only one of them."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1)
tenants = {name: create_async_engine(URL) for name in ("acme", "globex")}


async def load(name):
    async with tenants[name].connect() as conn:
        return await conn.scalar(text("select 1"))


async def load_both():
    await asyncio.gather(load("acme"), load("globex"))
    print("both loaded")
    await tenants["acme"].dispose()


async def load_again():
    await load("acme")
    await load("globex")


def first():
    asyncio.run(load_both())


def second():
    asyncio.run(load_again())


if __name__ == "__main__":
    first()
    second()
