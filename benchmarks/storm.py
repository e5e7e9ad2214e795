"""What failing costs when it goes on and on: `python -m benchmarks.storm [--pairs N]`.

Each side is a process of its own, with loopsentry and without, in turn: a pool that a closed loop
left behind is used many times on another one, and fails each time; and, as most errors of databases
have nothing to do with event loops, so does a statement that the server refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from statistics import median
from time import perf_counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import loopsentry

from .database import running

KINDS = {
    "a connection of a closed loop, again and again": "select 1",
    "a statement that the server refuses": "select 1/0",
}


async def _use(engine: AsyncEngine, statement: str) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(statement))


async def _fail(engine: AsyncEngine, statement: str, times: int) -> float:
    """Microseconds of each failure, the first left out."""
    with suppress(Exception):
        await _use(engine, statement)
    start = perf_counter()
    for _ in range(times):
        with suppress(Exception):
            await _use(engine, statement)
    return (perf_counter() - start) / times * 1e6


def measure_here(url: str, failures: int) -> dict[str, float]:
    """Microseconds of a failure of each kind, in this process."""
    measured = {}
    for name, statement in KINDS.items():
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        if statement == "select 1":
            asyncio.run(_use(engine, statement))
        measured[name] = asyncio.run(_fail(engine, statement, failures))
        engine.sync_engine.dispose(close=False)
    return measured


def _measure(url: str, side: str, failures: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.storm", "--url", url]
    ended = subprocess.run(  # noqa: S603 - this very module
        [*command, "--side", side, "--failures", str(failures)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def main() -> None:
    """Print the medians of both sides, and of their differences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--pairs", type=int, default=8, help="pairs of processes (default 8)")
    parser.add_argument("--failures", type=int, default=2000, help="in each (default 2000)")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("bare", "watched"), help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.side is not None:
        if known.side == "watched":
            loopsentry.install()
        print(json.dumps(measure_here(known.url, known.failures)))
        return
    with running() as url:
        sides = ("bare", "watched")
        pairs = [
            [_measure(url, side, known.failures) for side in sides] for _ in range(known.pairs)
        ]
    names = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "asyncpg"))
    print(f"Python {platform.python_version()}, {names}, {known.pairs} pairs of {known.failures}\n")
    print("| failure | without | with | difference |\n|---|---|---|---|")
    for name in KINDS:
        bare, watched = (median(pair[side][name] for pair in pairs) for side in (0, 1))
        more = median(pair[1][name] - pair[0][name] for pair in pairs)
        print(f"| {name} | {bare:.0f} µs | {watched:.0f} µs | {more:.0f} µs |")


if __name__ == "__main__":
    main()
