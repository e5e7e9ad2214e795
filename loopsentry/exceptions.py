"""Walking an exception's tree, however hostile its classes are.

Only the fields that `BaseException` itself keeps are read, through its own descriptors, and kinds
are asked of the type: a class may override anything else, `__class__` too.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

EXCEPTIONS_SEEN = 200


def is_a(target: object, *kinds: type) -> bool:
    """Whether an object's type is one of these; unlike `isinstance`, asks only the type."""
    return issubclass(type(target), kinds)


def field_of(exc: BaseException, name: str) -> Any:
    """One of the fields that `BaseException` keeps."""
    return BaseException.__dict__[name].__get__(exc, type(exc))


def walk_tree(exc: BaseException) -> list[BaseException]:
    """An exception with its causes, contexts, group members and originals, first raised first.

    Bounded, and safe against cycles.
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
    inner = [field_of(exc, "__cause__"), field_of(exc, "__context__")]
    if is_a(exc, BaseExceptionGroup):
        inner.extend(BaseExceptionGroup.__dict__["exceptions"].__get__(exc, type(exc)))
    inner.append(attributes_of(exc).get("orig"))
    return [node for node in inner if is_a(node, BaseException)]


def attributes_of(exc: BaseException) -> dict[str, Any]:
    """An exception's own attributes."""
    attributes = field_of(exc, "__dict__")
    return attributes if isinstance(attributes, dict) else {}


def notes_of(exc: BaseException) -> list[Any]:
    """An exception's PEP 678 notes; none where the attribute is no list."""
    notes = attributes_of(exc).get("__notes__")
    return notes if type(notes) is list else []


def traceback_of(exc: BaseException) -> TracebackType | None:
    """An exception's traceback."""
    traceback = field_of(exc, "__traceback__")
    return traceback if isinstance(traceback, TracebackType) else None


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """An exception's arguments."""
    args = field_of(exc, "args")
    return args if isinstance(args, tuple) else ()
