"""An indexer that looks at three things at once, twice."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=3)
Session = async_sessionmaker(engine)


async def look_at(name):
    async with Session() as session:
        await session.execute(text("select count(*) from pg_class, pg_sleep(0.05) where relname = :n"), {"n": name})


async def index_all():
    async with asyncio.TaskGroup() as group:
        for name in ("pg_type", "pg_proc", "pg_class"):
            group.create_task(look_at(name))


def index(which):
    with asyncio.Runner() as runner:
        runner.run(index_all())
    print(which, "run done")


if __name__ == "__main__":
    index("first")
    index("second")
