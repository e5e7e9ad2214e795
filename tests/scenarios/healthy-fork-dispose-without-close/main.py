"""Parent, child, and the parent again."""
import asyncio
import os
import traceback

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))

inherited = []


async def count():
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_type"))


def child():
    try:
        inherited.append(engine.pool)  # a collected asyncpg connection would end the parent's
        engine.sync_engine.dispose(close=False)
        assert asyncio.run(count())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def main():
    with asyncio.Runner() as runner:
        runner.run(count())
        pid = os.fork()
        if pid == 0:
            asyncio.set_event_loop(None)
            child()
        assert os.waitpid(pid, 0)[1] == 0
        assert runner.run(count())
        runner.run(engine.dispose())


if __name__ == "__main__":
    main()
