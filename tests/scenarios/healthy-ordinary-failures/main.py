"""Fails in several ordinary ways; the last one is not caught."""
import asyncio
import logging
import os

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
log = logging.getLogger("asyncio")


async def fails(statement, **settings):
    async with AsyncSession(engine) as session:
        for name, value in settings.items():
            await session.execute(text(f"set local {name} = {value}"))
        await session.execute(text(statement))


async def main():
    for statement, settings in (("selec 1", {}), ("select pg_sleep(2)", {"statement_timeout": 100}), ("select 1/0", {})):
        try:
            await fails(statement, **settings)
        except (ProgrammingError, DBAPIError):
            log.exception("statement failed")
    try:
        await asyncpg.connect("postgresql://postgres@127.0.0.1:1/none", timeout=2)
    except OSError:
        log.exception("no server there")
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    try:
        await conn.fetch("select pg_sleep(5)", timeout=0.1)
    except TimeoutError:
        log.exception("too slow")
    assert await conn.fetchval("select 1") == 1
    await conn.close()
    asyncio.get_running_loop().create_task(fails("select 2"))
    try:
        await asyncio.wait_for(fails("select pg_sleep(5)"), 0.3)
    finally:
        await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
