"""A loop that lives as long as one call: asyncio.run, run_until_complete, uvloop.run."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "asyncio-run"
RANK = 10

_RUNNERS = (
    ("uvloop", "run", "uvloop.run"),
    ("asyncio.runners", "run", "asyncio.run"),
    ("asyncio.runners", "__enter__", "asyncio.run"),  # of a Runner, which makes its loop then
    ("asyncio.base_events", "run_until_complete", "run_until_complete"),
    ("asyncio.base_events", "run_forever", "run_forever"),
)


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the outermost of asyncio's own ways to run a loop."""
    if any(frame.module == "unittest.async_case" for frame in stack):
        own = [frame.place for frame in stack if frame.coroutine and frame.user]
        return Recognition(
            context=NAME, runner="IsolatedAsyncioTestCase", started_by=own[-1] if own else None
        )
    found = None
    for frame in stack:
        if frame.coroutine:
            found = None  # only what started the outermost loop counts
        for module, function, runner in _RUNNERS:
            if frame.module == module and frame.function == function:
                found = _prefer(found, runner)
    return Recognition(context=NAME, runner=found) if found else None


def _prefer(found: str | None, runner: str) -> str:
    order = [name for *_, name in _RUNNERS]
    return runner if found is None or order.index(runner) < order.index(found) else found
