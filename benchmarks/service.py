"""The service that is put under load: most requests are well, two kinds fail by loop mistakes."""

from __future__ import annotations

import asyncio
import gc
import os

import psutil
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import loopsentry

WATCHED = os.environ.get("LOAD_SIDE") == "watched"
if WATCHED:
    loopsentry.install(sinks=["prometheus"])

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=16)
left_behind = create_async_engine(os.environ["DATABASE_URL"], pool_size=1, max_overflow=0)
lock = asyncio.Lock()


async def _read(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))


async def _hold() -> None:
    async with lock:
        await asyncio.sleep(0)


async def _prepare() -> None:
    await asyncio.gather(_read(left_behind), _hold(), _hold())


class Failures:
    """Counts what no part of the application answered."""

    seen = 0

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        try:
            await self.app(scope, receive, send)
        except Exception:
            Failures.seen += 1
            raise


async def _well(_request: Request) -> PlainTextResponse:
    await _read(engine)
    return PlainTextResponse("well")


async def _pool(_request: Request) -> PlainTextResponse:
    await _read(left_behind)
    return PlainTextResponse("well")


async def _lock(_request: Request) -> PlainTextResponse:
    await asyncio.gather(_hold(), _hold())
    return PlainTextResponse("well")


async def _state(_request: Request) -> JSONResponse:
    """What the process weighs, and what was counted."""
    gc.collect()
    process = psutil.Process()
    counted = (
        sample.value
        for metric in REGISTRY.collect()
        if metric.name == "loopsentry_failures"
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["severity"] == "error"
    )
    return JSONResponse(
        {
            "rss": process.memory_info().rss,
            "cpu_us": int(sum(process.cpu_times()[:2]) * 1e6),
            "failed": Failures.seen,
            "objects": len(gc.get_objects()),
            "counted": int(sum(counted)),
        }
    )


asyncio.run(_prepare())  # before the server's loop: what its connection and the lock belong to
app = Starlette(
    routes=[
        Route("/", _well),
        Route("/pool", _pool),
        Route("/lock", _lock),
        Route("/state", _state),
    ]
)
if WATCHED:
    app.add_middleware(loopsentry.LoopSentryMiddleware)
app.add_middleware(Failures)
