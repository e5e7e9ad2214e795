"""Two tasks of an anyio group run the same function on the session of their parent."""
import os

import anyio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


async def load(session):
    await session.execute(text("select pg_sleep(0.1)"))


async def main():
    async with Session() as session, anyio.create_task_group() as group:
        group.start_soon(load, session)
        group.start_soon(load, session)


if __name__ == "__main__":
    anyio.run(main)
