"""The main loop has read the addresses; a thread sends the mails."""
import asyncio
import os
import threading

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def addresses():
    async with AsyncSession(engine) as session:
        return (await session.execute(text("select rolname from pg_roles limit 3"))).scalars().all()


def mailer():
    loop = asyncio.new_event_loop()
    try:
        print("mails to", loop.run_until_complete(addresses()))
    finally:
        loop.close()


async def serve():
    await addresses()
    thread = threading.Thread(target=mailer, name="mailer")
    thread.start()
    thread.join()
    print("main loop done")


def start():
    asyncio.run(serve())


if __name__ == "__main__":
    start()
