"""Three workers start at the same moment, on one engine that nobody has used yet."""
import asyncio
import os
import threading
import time

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool
)
together = threading.Barrier(3)
failed = threading.Event()


@event.listens_for(engine.sync_engine, "connect")
def prepare(connection, record):
    time.sleep(0.4)  # reads a certificate, asks for a token, ...


async def query():
    together.wait(5)
    async with engine.connect() as conn:
        await conn.execute(text("select 1"))


def worker():
    try:
        asyncio.run(query())
    except RuntimeError:
        failed.set()
        raise


if __name__ == "__main__":
    for number in range(3):
        threading.Thread(target=worker, name=f"worker-{number}", daemon=True).start()
    failed.wait(5)
    time.sleep(0.5)
    os._exit(1 if failed.is_set() else 0)
