"""A daemon that forks for each job, out of its own loop."""
import asyncio
import os
import traceback

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def count():
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_type"))


def child():
    try:
        asyncio._set_running_loop(None)
        print("child counted", asyncio.run(count()))
        os._exit(0)
    except Exception:
        print("child failed", flush=True)
        traceback.print_exc()
        os._exit(1)


async def daemon():
    print("parent counted", await count(), flush=True)
    pid = os.fork()
    if pid == 0:
        child()
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


def main():
    raise SystemExit(asyncio.run(daemon()))


if __name__ == "__main__":
    main()
