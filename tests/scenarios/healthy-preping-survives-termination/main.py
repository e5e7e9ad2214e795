"""The server restarts between two requests; nobody notices."""
import asyncio
import os

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_pre_ping=True
)
Session = async_sessionmaker(engine)


async def pid():
    async with Session() as session:
        return await session.scalar(text("select pg_backend_pid()"))


async def main():
    admin = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    for _ in range(3):
        await admin.execute("select pg_terminate_backend($1)", await pid())
        await asyncio.sleep(0.1)
    assert await pid()
    await engine.dispose()
    await admin.close()


if __name__ == "__main__":
    asyncio.run(main())
