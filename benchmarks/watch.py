"""Measure the watch: `python -m benchmarks.watch [--uvloop] [--polls N]`.

First what it costs: the same work of many tasks on one event loop, in turn with the watch and
without, in one process; the ratio of each pair, and their median. Then whether it accuses a busy
program: so many looks at one that computes, blocks, collects garbage and waits for threads, with
the watch set to a fiftieth of a second. Nothing may be told.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Coroutine
from statistics import median
from typing import Any

from loopsentry.watchdog import Watchdog

Runner = Callable[[Coroutine[Any, Any, Any]], Any]

TASKS, SWITCHES = 200, 400


async def _serve() -> None:
    """The work of one round: tasks that take turns, and do a little each time."""

    async def request(number: int) -> int:
        total = 0
        for step in range(SWITCHES):
            total += len(str({"request": number, "step": step}))
            await asyncio.sleep(0)
        return total

    await asyncio.gather(*map(request, range(TASKS)))


def measure_cost(run: Runner, pairs: int) -> float:
    """The median of the ratios of time with the watch to time without."""
    dog = Watchdog(5.0, lambda *_: None)
    ratios = []
    for number in range(pairs + 1):
        taken = {}
        for watched in (number % 2 == 0, number % 2 == 1):
            if watched:
                dog.start()
            start = time.perf_counter()
            run(_serve())
            taken[watched] = time.perf_counter() - start
            dog.stop()
        ratios.append(taken[True] / taken[False])
    return median(ratios[1:])  # the first pair warms up


def count_claims(run: Runner, polls: int) -> int:
    """How often a busy program was accused, in at least so many looks."""
    told: list[Any] = []
    dog = _Counting(0.02, lambda *found: told.append(found))
    dog.start()
    run(_be_busy(lambda: dog.polls < polls))
    dog.stop()
    return len(told)


class _Counting(Watchdog):
    """A watch that counts its looks."""

    polls = 0

    def _poll(self, now: float) -> None:
        self.polls += 1
        super()._poll(now)


async def _sleep() -> None:
    await asyncio.sleep(0.005)


async def _block() -> None:
    time.sleep(0.005)  # noqa: ASYNC251 - to block is what is tried


async def _compute() -> None:
    sum(range(20_000))


async def _wait_for_thread() -> None:
    await asyncio.to_thread(time.sleep, 0.01)


async def _collect() -> None:
    gc.collect()


#: What a busy program does, the more often the more times it stands here.
_WORK = (*[_sleep, _block, _compute, _wait_for_thread] * 5, _collect, *[_sleep] * 10)


async def _be_busy(going_on: Callable[[], bool]) -> None:
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[int]()

    async def work() -> None:
        while True:
            await queue.get()
            await random.choice(_WORK)()  # noqa: S311 - no secret

    def feed() -> None:
        while going_on():
            for _ in range(20):
                loop.call_soon_threadsafe(queue.put_nowait, 1)
            time.sleep(0.02)

    tasks = [asyncio.create_task(work()) for _ in range(1_000)]
    await asyncio.to_thread(feed)
    for task in tasks:
        task.cancel()


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run the loops by uvloop")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--polls", type=int, default=10_000)
    options = parser.parse_args()
    run: Runner = asyncio.run
    if options.uvloop:
        import uvloop

        run = uvloop.run
    figures = {
        "python": platform.python_version(),
        "loop": "uvloop" if options.uvloop else "asyncio",
        "with / without": round(measure_cost(run, options.pairs), 4),
        "looks": options.polls,
        "false claims": count_claims(run, options.polls),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
