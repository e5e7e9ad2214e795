"""A test or fixture on a loop that anyio's pytest plugin made."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "anyio-pytest"
RANK = 68
PACKAGES = ("anyio", "trio", "sniffio")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the plugin's frames; the loop counts as started by the test or fixture on it."""
    if not any(frame.module == "anyio.pytest_plugin" for frame in stack):
        return None
    own = [frame.place for frame in stack if frame.coroutine and frame.user]
    return Recognition(
        context=NAME, runner="anyio's pytest plugin", started_by=own[-1] if own else None
    )
