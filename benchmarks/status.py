"""Measure a status: `python -m benchmarks.status --url URL [--tasks N] [--connections N]`.

The median time of `loopsentry.status()` in a program with many waiting tasks, and in one with many
connections, each taken out of its pool by a session of a task; and of printing it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import time
from collections.abc import Callable
from statistics import median

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

import loopsentry

ROUNDS = 7


def milliseconds(call: Callable[[], object]) -> float:
    """The median time of a call."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return round(1000 * median(taken), 1)


def measure() -> dict[str, float]:
    """How long it takes to read the status of now, and to print it."""
    return {
        "status": milliseconds(loopsentry.status),
        "print_status": milliseconds(lambda: loopsentry.print_status(io.StringIO())),
    }


async def _wait(lock: asyncio.Lock) -> None:
    async with lock:
        pass


async def among_tasks(count: int) -> dict[str, float]:
    """Measure beside so many tasks, which wait two coroutines deep."""
    lock = asyncio.Lock()
    async with lock:
        tasks = [asyncio.create_task(_wait(lock)) for _ in range(count)]
        await asyncio.sleep(0)
        measured = measure()
    await asyncio.gather(*tasks)
    return measured


async def _hold(engine: AsyncEngine, out: asyncio.Semaphore, done: asyncio.Event) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        out.release()
        await done.wait()


async def among_connections(url: str, count: int) -> dict[str, float]:
    """Measure while so many sessions have a connection each."""
    engine = create_async_engine(url, pool_size=count)
    out, done = asyncio.Semaphore(0), asyncio.Event()
    tasks = [asyncio.create_task(_hold(engine, out, done)) for _ in range(count)]
    for _ in tasks:
        await out.acquire()
    measured = measure()
    done.set()
    await asyncio.gather(*tasks)
    await engine.dispose()
    return measured


def main() -> None:
    """Print milliseconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=90)
    asked = parser.parse_args()
    with loopsentry.install():
        measured = {
            f"{asked.tasks} tasks": asyncio.run(among_tasks(asked.tasks)),
            f"{asked.connections} connections": asyncio.run(
                among_connections(asked.url, asked.connections)
            ),
        }
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
