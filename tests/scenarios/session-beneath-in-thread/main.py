"""A report is computed by an ordinary function, which a thread is given with the session's inside."""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("://", "+asyncpg://", 1))


def report(session):
    return session.execute(text("select 42")).scalar()


async def main():
    async with AsyncSession(engine) as session:
        print(await asyncio.to_thread(report, session.sync_session))


if __name__ == "__main__":
    asyncio.run(main())
