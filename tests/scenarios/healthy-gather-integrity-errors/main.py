"""Five reservations at once, all of the same seat; and every logger speaks."""
import asyncio
import logging
import os

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


async def reserve(seat):
    async with Session.begin() as session:
        await session.execute(text("insert into healthy_seats values (:s)"), {"s": seat})


async def main():
    async with engine.begin() as conn:
        await conn.execute(text("drop table if exists healthy_seats"))
        await conn.execute(text("create table healthy_seats (seat int primary key)"))
    results = await asyncio.gather(*(reserve(7) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, IntegrityError) for result in results) == 4
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(reserve(7))
    except* IntegrityError as refused:
        logging.getLogger("asyncio").exception("refused %d", len(refused.exceptions))
    await engine.dispose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
