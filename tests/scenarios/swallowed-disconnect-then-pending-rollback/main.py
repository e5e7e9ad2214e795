"""An error is logged and forgotten; what comes after it in the same session only says: pending."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def notify(session):
    try:
        await session.execute(text("select pg_terminate_backend(pg_backend_pid())"))
    except Exception as exc:
        print("could not notify:", type(exc).__name__)


async def main():
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        await notify(session)
        await session.execute(text("select 2"))


if __name__ == "__main__":
    asyncio.run(main())
