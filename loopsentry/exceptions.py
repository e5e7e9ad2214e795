"""Walking an exception's tree, however hostile its classes are."""

from __future__ import annotations

from types import TracebackType
from typing import Any

EXCEPTIONS_SEEN = 200


def walk_tree(exc: BaseException) -> list[BaseException]:
    """An exception with its causes, contexts, group members and originals, first raised first.

    Bounded, and safe against cycles and against classes that misbehave: only the fields that
    BaseException itself keeps are read.
    """
    found: list[BaseException] = []
    stack: list[tuple[BaseException, bool]] = [(exc, False)]
    seen: set[int] = set()
    while stack and len(found) < EXCEPTIONS_SEEN:
        node, expanded = stack.pop()
        if expanded:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((inner, False) for inner in _inner(node))
    return found


def _inner(exc: BaseException) -> list[BaseException]:
    get = BaseException.__getattribute__
    inner = [get(exc, "__cause__"), get(exc, "__context__")]
    if isinstance(exc, BaseExceptionGroup):
        inner.extend(BaseExceptionGroup.exceptions.__get__(exc))
    inner.append(get(exc, "__dict__").get("orig"))
    return [node for node in inner if isinstance(node, BaseException)]


def traceback_of(exc: BaseException) -> TracebackType | None:
    """An exception's traceback, whatever its class says of attributes."""
    traceback = BaseException.__getattribute__(exc, "__traceback__")
    return traceback if isinstance(traceback, TracebackType) else None


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """An exception's arguments, whatever its class says of `args`."""
    args = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    return args if isinstance(args, tuple) else ()
