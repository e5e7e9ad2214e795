"""One side of a pair, in a process of its own: `python -m benchmarks.side`.

SQLAlchemy keeps some flags after a listener is removed, so "without" is a process in which
nothing was ever installed. A side answers each line on its standard input, the name of a measure,
with the microseconds that one operation took.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Mapping
from time import perf_counter

import sqlalchemy.ext.asyncio

from .measures import SIZES, Batch, answer, batches
from .tools import TOOLS


def time_batch(runner: asyncio.Runner, batch: Batch, size: int) -> float:
    """Microseconds of one operation, without the garbage collector."""

    async def timed() -> float:
        start = perf_counter()
        await batch(size)
        return (perf_counter() - start) / size * 1e6

    gc.collect()
    return runner.run(timed())


def serve(runner: asyncio.Runner, known: Mapping[str, Batch]) -> None:
    """Warm everything up, say so, then answer until the input ends."""
    for name, batch in known.items():
        for _ in range(3):
            time_batch(runner, batch, SIZES[name])
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        print(time_batch(runner, known[name], SIZES[name]), flush=True)


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--tool", choices=TOOLS, default="nothing")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    factory = None
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    app = TOOLS[options.tool](answer)  # before the engine: some wrap what makes engines
    # Looked up now: OpenTelemetry replaces the function.
    engine = sqlalchemy.ext.asyncio.create_async_engine(options.url)
    with asyncio.Runner(loop_factory=factory) as runner:
        serve(runner, batches(engine, app))
        runner.run(engine.dispose())


if __name__ == "__main__":
    main()
