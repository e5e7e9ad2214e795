"""Who started a loop, from where, and in which context: read off a stack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .model import Frame, LoopInfo, Place, Recognition, Stack


class Context(Protocol):
    """An entry of the contexts' shelf."""

    NAME: str
    RANK: int

    def recognise(self, stack: Stack, /) -> Recognition | None:
        """Say what the context knows of a stack, None if it is another one."""


class Recogniser:
    """All contexts, asked in the order of their rank."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self.contexts = sorted(contexts, key=lambda context: -context.RANK)

    def recognise(self, stack: Stack) -> list[Recognition]:
        """Every context that knows the stack, the most telling first."""
        found = (context.recognise(stack) for context in self.contexts)
        return [recognition for recognition in found if recognition is not None]

    def describe_loop(self, stack: Stack) -> LoopInfo:
        """Describe the loop that a stack runs on; the registry adds the number and the run."""
        inner = innermost_loop(stack)
        found = self.recognise(inner)
        runner = next((r.runner for r in found if r.runner), None)
        starter = next((r.started_by for r in found if r.started_by), None)
        if len(inner) < len(stack):
            found = self.recognise(stack)
        return LoopInfo(
            id=0,
            runner=runner,
            started_by=starter or starter_of(inner),
            scope=next((r.scope for r in found if r.scope), None),
            contexts=tuple(r.context for r in found),
            followed=tuple(fix for r in found for fix in r.followed),
        )


def innermost_loop(stack: Stack) -> Stack:
    """The part of a stack that belongs to the loop it runs on.

    Outside of that loop's own runner may stand coroutines of another one, below which it was
    started: IPython runs each cell in a coroutine. And a function of the user's that calls
    `asyncio.run` is its starter, whatever called that function: a plugin's hook, a worker.
    """
    runner = next((i for i, frame in enumerate(stack) if _runs_loop(frame)), None)
    if runner is None:
        return stack
    outside = (i for i, frame in enumerate(stack) if i > runner and frame.coroutine)
    own = stack[: next(outside, len(stack))]
    starters = (i for i, frame in enumerate(own) if i > runner and frame.user)
    return own[: next(starters, len(own) - 1) + 1]


def _runs_loop(frame: Frame) -> bool:
    return frame.module.startswith(_LOOPS) and frame.function in _RUNNERS


def starter_of(stack: Stack) -> Place | None:
    """The user's frame that started the loop: the first below the outermost coroutine.

    A callback has no coroutine; then the loop's own frames are the border, where it has any.
    """
    inside = [i for i, frame in enumerate(stack) if frame.coroutine]
    if not inside:
        inside = [i for i, frame in enumerate(stack) if frame.module.startswith(_LOOPS)]
    if not inside:
        return None
    return next((frame.place for frame in stack[inside[-1] + 1 :] if frame.user), None)


_RUNNERS = ("run", "run_until_complete", "run_forever")
_LOOPS = ("asyncio.base_events", "asyncio.runners", "uvloop")
