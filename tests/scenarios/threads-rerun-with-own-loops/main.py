"""A dashboard runs its script in a new thread for each visitor, one after another."""

import asyncio
import functools
import os
import threading

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


@functools.cache
def get_engine():
    url = os.environ["SCENARIO_DSN"].replace("://", "+asyncpg://", 1)
    engine = create_async_engine(url)
    return engine


async def query():
    async with get_engine().connect() as connection:
        return await connection.scalar(text("select 42"))


def script():
    loop = asyncio.new_event_loop()
    try:
        print(loop.run_until_complete(query()))
    finally:
        loop.close()


for _ in range(2):
    visitor = threading.Thread(target=script)
    visitor.start()
    visitor.join()
