"""Which operation probably was under way, when the task that ran it is gone.

A driver used without an engine tells of a clash only in the exception, and by the time a hook sees
that, the other task is over. What stands in the traceback still shows which task it can only have
been: one that the user's objects keep, or the one function started beside the failing one. It is a
reading of the source, and its `state` says so.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any

from . import _frames
from ._frames import Site
from .exceptions import is_a, variables_of
from .model import Operation

_STARTERS = frozenset(
    {
        "TaskGroup",
        "create_task",
        "create_task_group",
        "ensure_future",
        "gather",
        "start_soon",
        "wait",
    }
)
_ATTRIBUTES_SEEN = 100


def find_sibling(sites: list[Site]) -> Operation | None:
    """The one task or function that can have been beside the failing one, None if several can.

    Args:
        sites: a traceback's frames from the innermost outwards.
    """
    own = [site for site in sites if _frames.is_user(site.frame)]
    running = {site.code for site in own}
    kept = {code for site in own for code in _kept_tasks(site.frame)} - running
    if len(kept) == 1:
        return _operation(kept.pop(), "probably; a task kept in an object")
    for inner, outer in itertools.pairwise(own):
        if not _STARTERS.intersection(outer.code.co_names):
            continue
        beside = set(_started_beside(inner.code, outer.frame))
        others = beside - {inner.code}
        if len(others) == 1 or (beside and not others):
            return _operation((others or beside).pop(), "probably; started beside it")
    return None


def holds_cancelled(sites: list[Site]) -> bool:
    """Whether the failing functions hold a task that was cancelled and may not be over yet.

    Args:
        sites: a traceback's frames from the innermost outwards.
    """
    own = [site.frame for site in sites if _frames.is_user(site.frame)]
    held = (value for frame in own for value in _frames.variables_in(frame).values())
    return any(is_a(task, asyncio.Task) and _was_cut(task) for task in held)


def _was_cut(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.cancelling() > 0


def _operation(code: CodeType, state: str) -> Operation:
    place = _frames.place_of_code(code)
    return Operation(
        task="",
        function=place.function,
        file=place.file,
        line=place.line,
        state=state,
    )


def _kept_tasks(frame: FrameType) -> Iterator[CodeType]:
    """Code of the tasks that the object whose method this is keeps."""
    for value in _values_of(_frames.first_argument(frame)):
        if is_a(value, asyncio.Task):
            code = getattr(value.get_coro(), "cr_code", None)
            if code is not None:
                yield code


def _started_beside(code: CodeType, frame: FrameType) -> Iterator[CodeType]:
    """Code of the coroutine functions that a frame can have started, if it started `code`."""
    values = [frame.f_globals.get(name) for name in frame.f_code.co_names]
    values += _values_of(_frames.first_argument(frame))
    yield from _group_with(code, values)
    for value in values:
        if is_a(value, list, tuple, set):
            yield from _group_with(code, value)


def _group_with(code: CodeType, values: Iterable[Any]) -> list[CodeType]:
    """The coroutine functions of a group, if `code` is one of them."""
    codes = [value.__code__ for value in values if _is_coroutine_function(value)]
    return codes if code in codes else []


def _is_coroutine_function(value: Any) -> bool:
    return is_a(value, FunctionType) and bool(value.__code__.co_flags & inspect.CO_COROUTINE)


def _values_of(target: Any) -> list[Any]:
    return list(variables_of(target).values())[:_ATTRIBUTES_SEEN]
