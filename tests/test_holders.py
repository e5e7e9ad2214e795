"""Whose work a task does: the task that waits for it, through whatever asyncio puts in between."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
from conftest import RunProgram

from loopsentry.holders import place_waiting_for

Work = Callable[[], Coroutine[Any, Any, None]]


async def by_gather(work: Work) -> None:
    """Wait for several."""
    await asyncio.gather(work(), asyncio.sleep(0))


async def by_shield(work: Work) -> None:
    """Wait for one that is shielded."""
    await asyncio.shield(work())


async def by_task(work: Work) -> None:
    """Wait for a task itself."""
    await asyncio.create_task(work())


async def by_wait(work: Work) -> None:
    """Wait for a set of tasks."""
    await asyncio.wait({asyncio.create_task(work())})


async def by_group(work: Work) -> None:
    """Wait for a group of asyncio's."""
    async with asyncio.TaskGroup() as group:
        group.create_task(work())


async def by_anyio(work: Work) -> None:
    """Wait for a group of anyio's."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)


async def by_gather_of_gathers(work: Work) -> None:
    """Wait for several, of which one waits for several."""
    await asyncio.gather(asyncio.gather(work()), asyncio.sleep(0))


@pytest.mark.parametrize(
    "wait", [by_gather, by_shield, by_task, by_wait, by_group, by_anyio, by_gather_of_gathers]
)
def test_the_waiting_task_is_found(wait: Callable[[Work], Awaitable[None]]) -> None:
    """The place is the line at which the function waits that gave the work away."""
    found: list[str | None] = []

    async def work() -> None:
        place = place_waiting_for(asyncio.current_task())
        found.append(place.function if place is not None else None)

    async def main() -> None:
        await wait(work)

    asyncio.run(main())
    assert found == [wait.__name__]


def test_the_programs_own_callbacks_are_not_looked_into() -> None:
    """A callback that acts upon another task does not make that one wait."""
    found: list[object] = []

    class Hostile:
        """An object that answers nothing."""

        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

    async def main() -> None:
        hostile, other = Hostile(), asyncio.create_task(asyncio.sleep(1))

        async def work() -> None:
            await asyncio.sleep(0)
            found.append(place_waiting_for(asyncio.current_task()))
            ended.set()

        ended = asyncio.Event()
        task = asyncio.create_task(work())
        task.add_done_callback(lambda _: (other.cancel(), hostile))
        task.add_done_callback(functools.partial(lambda held, _: held.cancel(), other))
        await ended.wait()

    asyncio.run(main())
    assert found == [None]


WRAPPED = """
import asyncio
from loopsentry.holders import sites_of

class Startable:
    def __await__(self): return deep().__await__()
async def deep(): await asyncio.sleep(1)
async def values():
    await asyncio.sleep(1)
    yield 1
async def awaits(): await Startable()
async def iterates():
    async for _ in values(): pass
async def takes_next(): await anext(values(), None)
async def sends(): await values().asend(None)

async def main():
    tasks = [asyncio.create_task(f()) for f in (awaits, iterates, takes_next, sends)]
    await asyncio.sleep(0)
    for task in tasks:
        print(*(site.code.co_name for site in sites_of(task)))
        task.cancel()
asyncio.run(main())
"""


def test_a_task_is_followed_through_what_wraps_a_coroutine(run_program: RunProgram) -> None:
    """`__await__` of a coroutine and the steps of an async generator hide no frame."""
    ended = run_program(WRAPPED)
    assert ended.stdout.splitlines() == [
        "awaits deep sleep",
        "iterates values sleep",
        "takes_next values sleep",
        "sends values sleep",
    ]
