"""The operations that are timed; each is a coroutine function that does it a number of times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import Pool
from sqlalchemy.util import greenlet_spawn

Batch = Callable[[int], Awaitable[None]]
Message = MutableMapping[str, Any]
ASGIApp = Callable[..., Awaitable[None]]

#: Operations in a batch, by measure. The clock is read once for a batch: long enough that the
#: clock does not matter, short enough that most batches are not disturbed by other programs.
SIZES = {
    "checkout": 1_000,
    "statement": 100,
    "session": 30,
    "request": 10_000,
    "log record": 2_000,
    "asyncio.run": 50,
}


def batches(engine: AsyncEngine, app: ASGIApp) -> dict[str, Batch]:
    """Everything that is timed, by name."""
    return {
        "checkout": check_out(engine),
        "statement": execute_statement(engine),
        "session": open_session(engine),
        "request": call(app),
        "log record": write_record(),
        "asyncio.run": run_loops(),
    }


def check_out(engine: AsyncEngine) -> Batch:
    """Take a warm connection out of the pool and give it back; nothing is sent to the server."""

    def work(pool: Pool, times: int) -> None:
        for _ in range(times):
            pool.connect().close()

    async def batch(times: int) -> None:
        await greenlet_spawn(work, engine.sync_engine.pool, times)

    return batch


def execute_statement(engine: AsyncEngine) -> Batch:
    """Execute `SELECT 1` on an open connection, inside one transaction."""
    statement = text("SELECT 1")

    async def batch(times: int) -> None:
        async with engine.connect() as connection:
            for _ in range(times):
                await connection.execute(statement)

    return batch


def open_session(engine: AsyncEngine) -> Batch:
    """Open a session, execute `SELECT 1`, close it: checkout, BEGIN, statement, ROLLBACK."""
    statement = text("SELECT 1")

    async def batch(times: int) -> None:
        for _ in range(times):
            async with AsyncSession(engine) as session:
                await session.execute(statement)

    return batch


def write_record() -> Batch:
    """Log a line without an exception, to nowhere."""
    logger = logging.getLogger("benchmarks")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.INFO)

    async def batch(times: int) -> None:
        for number in range(times):
            logger.info("line %d", number)

    return batch


def run_loops() -> Batch:
    """Run a coroutine that does nothing with `asyncio.run`, in a thread of its own."""

    async def nothing() -> None:
        pass

    def work(times: int) -> None:
        for _ in range(times):
            asyncio.run(nothing())

    async def batch(times: int) -> None:
        await asyncio.to_thread(work, times)

    return batch


async def answer(_scope: Message, _receive: Any, send: Any) -> None:
    """Answer a request with two letters; a pure ASGI application."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def call(app: ASGIApp) -> Batch:
    """Call an ASGI application as a server does, without a server."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Message) -> None:
        pass

    async def batch(times: int) -> None:
        for _ in range(times):
            await app(scope, receive, send)

    return batch
