"""A dialogue inside a transaction."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1),
    connect_args={"server_settings": {"idle_in_transaction_session_timeout": "100"}},
)


async def dialogue():
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        print("thinking")
        await asyncio.sleep(0.5)
        await session.execute(text("select 2"))


if __name__ == "__main__":
    asyncio.run(dialogue())
