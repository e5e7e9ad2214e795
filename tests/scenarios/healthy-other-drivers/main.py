"""The same questions over drivers that are not bound to a loop."""
import asyncio
import os
import threading

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

engines = [
    create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+psycopg://", 1)),
    create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool),
]


async def query(engine):
    async with engine.connect() as conn:
        assert await conn.scalar(text("select 6 * 7")) == 42
        try:
            await conn.execute(text("create temporary table if not exists twice (id int primary key)"))
            await conn.execute(text("insert into twice values (1), (1)"))
        except IntegrityError:
            await conn.rollback()


def everywhere(engine):
    asyncio.run(query(engine))
    asyncio.run(query(engine))
    thread = threading.Thread(target=lambda: asyncio.run(query(engine)))
    thread.start()
    thread.join()
    asyncio.run(engine.dispose())


if __name__ == "__main__":
    for engine in engines:
        everywhere(engine)
