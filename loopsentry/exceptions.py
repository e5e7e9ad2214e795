"""Walking an exception's tree, and looking at foreign objects, however hostile their classes are.

Only the fields that `BaseException` itself keeps are read, through its own descriptors, and kinds
are asked of the type: a class may override anything else, `__class__` too.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

EXCEPTIONS_SEEN = 200


def is_a(target: object, *kinds: type[T]) -> TypeGuard[T]:
    """Whether an object's type is one of these; unlike `isinstance`, asks only the type."""
    return issubclass(type(target), kinds)


def text_of(value: object) -> str:
    """A text as plain `str`, whatever a subclass makes of it; "" for anything else."""
    return str.__str__(value) if is_a(value, str) else ""


def type_name_of(target: object) -> str:
    """The qualified name of an object's type; a class may say anything of its module."""
    return f"{text_of(type(target).__module__)}.{text_of(type(target).__qualname__)}"


def message_of(exc: BaseException) -> str:
    """An exception's first argument where that is a text, "" where it is none."""
    return text_of(next(iter(arguments_of(exc)), ""))


def variables_of(target: object) -> dict[str, Any]:
    """An object's own attributes, without running its `__getattribute__` or `__getattr__`."""
    try:
        attributes = object.__getattribute__(target, "__dict__")
    except Exception:
        return {}
    return attributes if type(attributes) is dict else {}


def field_of(exc: BaseException, name: str) -> Any:
    """One of the fields that `BaseException` keeps."""
    return BaseException.__dict__[name].__get__(exc, type(exc))


def walk_tree(exc: BaseException) -> list[BaseException]:
    """An exception with its causes, contexts, group members and originals, first raised first.

    Bounded, and safe against cycles.
    """
    return [node for node, _ in walk_with_parents(exc)]


def walk_with_parents(
    exc: BaseException,
) -> list[tuple[BaseException, BaseException | None]]:
    """The same, each with the exception that it was found in; None for the outermost."""
    found: list[tuple[BaseException, BaseException | None]] = []
    stack: list[tuple[BaseException, BaseException | None, bool]] = [(exc, None, False)]
    seen: set[int] = set()
    while stack and len(found) < EXCEPTIONS_SEEN:
        node, parent, expanded = stack.pop()
        if expanded:
            found.append((node, parent))
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, parent, True))
            stack.extend((inner, node, False) for inner in _inner(node))
    return found


def _inner(exc: BaseException) -> list[BaseException]:
    inner = [field_of(exc, "__cause__"), field_of(exc, "__context__")]
    inner.extend(members_of(exc))
    inner.append(attributes_of(exc).get("orig"))
    return [node for node in inner if is_a(node, BaseException)]


def members_of(exc: BaseException) -> tuple[BaseException, ...]:
    """The exceptions of a group; none for any other exception."""
    if not is_a(exc, BaseExceptionGroup):
        return ()
    members = BaseExceptionGroup.__dict__["exceptions"].__get__(exc, type(exc))
    return members if isinstance(members, tuple) else ()


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
