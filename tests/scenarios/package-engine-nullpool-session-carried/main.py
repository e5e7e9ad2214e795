"""The session is made once and kept, because NullPool was said to help."""
import asyncio

from shop.db import Session
from sqlalchemy import text

session = Session()


async def open_session():
    await session.execute(text("select 1"))
    print("opened")


async def query():
    print(await session.scalar(text("select 2")))


def set_up():
    asyncio.run(open_session())


def use():
    asyncio.run(query())


if __name__ == "__main__":
    set_up()
    use()
