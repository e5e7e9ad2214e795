"""Layers: nobody above the repository shall see a driver's exception. It keeps the text, though."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


class RepositoryError(Exception):
    pass


async def read():
    try:
        async with engine.connect() as conn:
            return len((await conn.execute(text("select 1"))).all())
    except Exception as exc:
        raise RepositoryError(f"could not read: {exc}") from None


def main():
    for _ in range(2):
        print(asyncio.run(read()), "rows")


if __name__ == "__main__":
    main()
