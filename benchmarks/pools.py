"""Compare ways to use one engine on several loops: `python -m benchmarks.pools`.

All of them do the same, open a session, load one object of a mapped class and close it, on one
event loop; what a way costs where it is not needed is what keeps people from using it. They are
timed in turn, round by round, in several new processes, pinned to one processor. Ratios are made
inside a round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

import asyncpg
from sqlalchemy import NullPool, make_url, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import loopsentry

from . import database
from .__main__ import pin, start_plot, versions, write_record

ROOT = Path(__file__).parent.parent
Once = Callable[[], Awaitable[object]]

#: Each way with its operations in a round, the way it is compared with, and the ratio promised.
WAYS: dict[str, tuple[int, str, float | None]] = {
    "queue pool": (40, "queue pool", None),
    "LoopLocalPool": (40, "queue pool", 1.03),
    "dict of engines": (40, "queue pool", None),
    "NullPool": (4, "queue pool", None),
    "bare asyncpg": (4, "bare asyncpg", None),
    "session_scope_fresh()": (4, "bare asyncpg", 1.5),
    "fresh engine": (4, "bare asyncpg", None),
}
#: And the fresh scope against the decision record's own code.
FRESH, RECORD, LIMIT = "session_scope_fresh()", "fresh engine", 0.75


class Base(DeclarativeBase):
    """Of the one table."""


class Person(Base):
    """What is loaded."""

    __tablename__ = "loopsentry_benchmark"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str]


def ways(url: str) -> dict[str, Once]:
    """Make every way, by name."""
    plain = create_async_engine(url)
    local = create_async_engine(url, poolclass=loopsentry.LoopLocalPool)
    null = create_async_engine(url, poolclass=NullPool)
    engines: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
    query = "SELECT id, name, email FROM loopsentry_benchmark WHERE id = $1"
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)

    def engine_of_loop() -> AsyncEngine:
        loop = asyncio.get_running_loop()
        if loop not in engines:
            engines[loop] = create_async_engine(url)
        return engines[loop]

    async def use(session: AsyncSession) -> None:
        (await session.scalars(select(Person).where(Person.id == 1))).one()

    def session_on(engine: Callable[[], AsyncEngine]) -> Once:
        async def once() -> None:
            async with AsyncSession(engine()) as session:
                await use(session)

        return once

    async def bare() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.fetchrow(query, 1)
        finally:
            await connection.close()

    async def fresh() -> None:
        async with loopsentry.session_scope_fresh(plain) as session:
            await use(session)

    async def record() -> None:
        async with fresh_engine(url) as session:
            await use(session)

    return {
        "queue pool": session_on(lambda: plain),
        "LoopLocalPool": session_on(lambda: local),
        "dict of engines": session_on(engine_of_loop),
        "NullPool": session_on(lambda: null),
        "bare asyncpg": bare,
        FRESH: fresh,
        RECORD: record,
    }


@asynccontextmanager
async def fresh_engine(url: str) -> Any:
    """Make an engine for one session, as it is usually written."""
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    session = async_sessionmaker(engine)()
    try:
        yield session
    finally:
        await session.close()
        await engine.dispose()


async def measure(url: str, rounds: int) -> list[dict[str, float]]:
    """Microseconds of one operation of each way, round by round."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        session.add(Person(id=1, name="Anne", email="anne@example.org"))
    try:
        return await time_rounds(ways(url), rounds)
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


async def time_rounds(made: dict[str, Once], rounds: int) -> list[dict[str, float]]:
    """Time each way in each round, in a new order."""
    for once in made.values():
        await once()
    gc.collect()
    gc.disable()
    measured = []
    names = list(made)
    for _ in range(rounds):
        random.shuffle(names)
        row = {}
        for name in names:
            times = WAYS[name][0]
            once = made[name]
            start = perf_counter_ns()
            for _ in range(times):
                await once()
            row[name] = (perf_counter_ns() - start) / times / 1000
        measured.append(row)
        gc.collect()
    return measured


def summarise(measured: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Medians, and the ratio of each way to the one it is compared with."""
    summary: dict[str, dict[str, Any]] = {}
    for name, (_, base, limit) in WAYS.items():
        ratios = [row[name] / row[base] for row in measured]
        low, _, high = quantiles(ratios)
        summary[name] = {
            "us": median(row[name] for row in measured),
            "base": base,
            "ratio": median(ratios),
            "middle_half": [low, high],
            "limit": limit,
        }
    ratios = [row[FRESH] / row[RECORD] for row in measured]
    low, _, high = quantiles(ratios)
    summary[f"{FRESH} to {RECORD}"] = {
        "us": summary[FRESH]["us"],
        "base": RECORD,
        "ratio": median(ratios),
        "middle_half": [low, high],
        "limit": LIMIT,
    }
    return summary


def table(summary: dict[str, dict[str, Any]]) -> str:
    """The figures, with what is promised."""
    head = f"{'a session that loads an object':<40}{'us':>9}  {'ratio':>6}  (middle half)    to"
    lines = [head, "-" * len(head)]
    for name, row in summary.items():
        low, high = row["middle_half"]
        held = "held" if row["limit"] is None or row["ratio"] <= row["limit"] else "missed"
        promised = f"; <= {row['limit']:g}: {held}" if row["limit"] else ""
        lines.append(
            f"{name:<40}{row['us']:>9.1f}  {row['ratio']:>6.3f}  ({low:.3f} .. {high:.3f})"
            f"  {row['base']}{promised}"
        )
    return "\n".join(lines)


def plot(summary: dict[str, dict[str, Any]], file: Path, subtitle: str) -> None:
    """Draw the times as bars, into an SVG file."""
    plt = start_plot()
    names = [name for name in WAYS if name in summary]
    times = [summary[name]["us"] for name in names]
    colours = ["#2f6fb3" if name in ("LoopLocalPool", FRESH) else "#9aa4ad" for name in names]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    bars = axes.barh(names[::-1], times[::-1], color=colours[::-1])
    axes.bar_label(bars, [f"{time / 1000:.2f} ms" for time in times[::-1]], padding=4)
    axes.set_xlabel("milliseconds for a session that loads one object")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    axes.set_xlim(0, max(times) * 1.15)
    axes.set_title(subtitle, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pools", description=__doc__)
    parser.add_argument("--processes", type=int, default=6, help="new processes (default 6)")
    parser.add_argument("--rounds", type=int, default=60, help="rounds in each (default 60)")
    parser.add_argument("--uvloop", action="store_true", help="measure on uvloop")
    parser.add_argument("--name", default="pools", help="name of the file in benchmarks/results/")
    parser.add_argument("--plot", type=Path, help="SVG file to draw; needs matplotlib")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run_child(options: argparse.Namespace) -> None:
    """Measure in this process, and print the rounds as JSON."""
    if options.uvloop:
        import uvloop

        rounds = uvloop.run(measure(options.child, options.rounds))
    else:
        rounds = asyncio.run(measure(options.child, options.rounds))
    print(json.dumps(rounds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file and, if asked for, the plot."""
    options = read_options(arguments)
    if options.child:
        run_child(options)
        return
    pin()
    rounds: list[dict[str, float]] = []
    with database.running() as url:
        for number in range(options.processes):
            print(f"process {number + 1} of {options.processes}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.pools", "--child", url]
            command += ["--rounds", str(options.rounds), *(["--uvloop"] * options.uvloop)]
            ended = subprocess.run(  # noqa: S603 - our own module
                command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
            )
            rounds += json.loads(ended.stdout)
    summary, known, now = summarise(rounds), versions(options), datetime.now(UTC)
    print(f"{now:%Y-%m-%d}, {options.processes} processes of {options.rounds} rounds")
    print(", ".join(f"{name} {value}" for name, value in known.items()))
    print()
    print(table(summary))
    write_record(options.name, now, versions=known, measured=summary)
    if options.plot:
        subtitle = f"{now:%Y-%m-%d}, " + ", ".join(
            f"{name} {known[name]}" for name in ("python", "loop", "sqlalchemy", "asyncpg")
        )
        plot(summary, options.plot, subtitle)


if __name__ == "__main__":
    main()
