"""How long a diagnosis takes while many tasks are alive: `python -m benchmarks.diagnosis`.

Whoever fails waits for it, and so does the loop. Each failure is a real one, on an engine of its
own, so that nothing is known from the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import loopsentry
from loopsentry.installation import current
from loopsentry.model import Clue
from loopsentry.report import Examiner

TASKS = (500, 10_000)
engine: AsyncEngine


def watch() -> tuple[Callable[[Exception], Any], list[float]]:
    """Install, and give the function that reports, with the milliseconds of each of its calls."""
    taken: list[float] = []
    report = Examiner.report

    def timed(examiner: Examiner, exc: BaseException, clue: Clue | None = None) -> Any:
        start = perf_counter()
        try:
            return report(examiner, exc, clue)
        finally:
            taken.append((perf_counter() - start) * 1e3)

    Examiner.report = timed  # type: ignore[method-assign]
    loopsentry.install()
    installation = current()
    if installation is None:
        raise SystemExit("LOOPSENTRY=off forbids to measure")
    return installation.examiner.report, taken


@asynccontextmanager
async def alive(tasks: int) -> AsyncIterator[None]:
    """Keep as many tasks waiting on this loop."""

    async def wait() -> None:
        await asyncio.Event().wait()

    waiting = [asyncio.create_task(wait()) for _ in range(tasks)]
    await asyncio.sleep(0)
    yield
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def use() -> None:
    """Take a connection out of the engine's pool and give it back."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def cross_loops(_report: Callable[[Exception], Any], tasks: int) -> None:
    """Fill the pool on one loop, use it on another."""

    async def fail() -> None:
        async with alive(tasks):
            try:
                await use()
            except RuntimeError:
                return
            raise SystemExit("two loops on one connection did not fail")

    asyncio.run(use())
    asyncio.run(fail())


def share_session(report: Callable[[Exception], Any], tasks: int) -> None:
    """Use one session in two tasks of one loop; the failing one is examined where it is caught."""

    async def query(session: AsyncSession) -> None:
        try:
            await session.execute(text("SELECT 1"))
        except Exception as exc:
            report(exc)

    async def fail() -> None:
        async with alive(tasks):
            async with AsyncSession(engine) as session:
                await asyncio.gather(query(session), query(session))
            await engine.dispose()

    asyncio.run(fail())


FAILURES: dict[str, Callable[[Callable[[Exception], Any], int], None]] = {
    "two loops": cross_loops,
    "sharing in one loop": share_session,
}


def measure(url: str, times: int) -> dict[str, dict[int, list[float]]]:
    """Milliseconds of each diagnosis, by the failure and the number of tasks alive."""
    global engine  # noqa: PLW0603 - found by its name, as an application's is
    report, taken = watch()
    measured: dict[str, dict[int, list[float]]] = {}
    for name, fail in FAILURES.items():
        measured[name] = {}
        for tasks in TASKS:
            taken.clear()
            for _ in range(times + 1):
                engine = create_async_engine(url)
                fail(report, tasks)
            measured[name][tasks] = taken[1:]  # the first meets imports and cold caches
    return measured


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--url", required=True, help="a postgresql+asyncpg:// URL")
    parser.add_argument("--times", type=int, default=21, help="failures of each kind (default 21)")
    options = parser.parse_args()
    print(json.dumps(measure(options.url, options.times)))


if __name__ == "__main__":
    main()
