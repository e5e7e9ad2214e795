"""Who was at work when a connection was opened or used: a test or a fixture, and its loop scope."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from loopsentry.model import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What an actor's own source says of its event loop.

    Attributes:
        kind: "test" or "fixture".
        name: of the function, or of the fixture.
        place: where its definition begins, decorators included.
        explicit: the loop scope that it asks for itself, None where it takes the default.
        marked: what the asyncio marker of a test stands on: "function", "class" or "module".
        scope: a fixture's scope.
        autouse: whether a fixture is used without being asked for.
        parametrised: whether a fixture has parameters.
        parent: name of a test's class, if it has one.
    """

    kind: str
    name: str
    place: Place
    explicit: str | None = None
    marked: str | None = None
    scope: str | None = None
    autouse: bool = False
    parametrised: bool = False
    parent: str | None = None


class Actor(dict[str, str]):
    """A test or a fixture, as a record names it: `{"name": "pytest", "test": …}`.

    Attributes:
        source: the item or the fixture's definition, weakly.
    """

    __slots__ = ("source",)

    source: Callable[[], Any]

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)

    def role(self) -> Role | None:
        """What its source says, None when pytest has forgotten it."""
        source = self.source()
        if source is None:
            return None
        return _role_of_fixture(source) if "fixture" in self else _role_of_test(source)


def test_actor(item: pytest.Item) -> Actor:
    """The actor of a test."""
    actor = Actor(name="pytest", test=item.nodeid)
    actor.source = weakref.ref(item)
    return actor


def fixture_actor(definition: pytest.FixtureDef[Any], test: str) -> Actor:
    """The actor of a fixture that is set up or torn down for a test."""
    actor = Actor(name="pytest", fixture=definition.argname, test=test)
    actor.source = weakref.ref(definition)
    return actor


def place_of(function: Any) -> Place:
    """Where a function's definition begins, decorators included."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return Place("<unknown>", 1, getattr(function, "__name__", ""))
    return Place(code.co_filename, code.co_firstlineno, code.co_name)


def _role_of_fixture(definition: Any) -> Role:
    function = definition.func
    place = place_of(function)
    return Role(
        kind="fixture",
        name=definition.argname,
        place=place,
        # pytest_asyncio/plugin.py: _make_asyncio_fixture_function
        explicit=getattr(function, "_loop_scope", None),
        scope=definition.scope,
        autouse=bool(getattr(definition, "_autouse", False)),
        parametrised=definition.params is not None,
    )


def _role_of_test(item: Any) -> Role:
    found = next(item.iter_markers_with_node("asyncio"), None)
    explicit = marked = None
    if found is not None:
        node, marker = found
        explicit = marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
        kinds = ((pytest.Module, "module"), (pytest.Class, "class"))
        marked = next((word for kind, word in kinds if isinstance(node, kind)), "function")
    return Role(
        kind="test",
        name=getattr(item, "originalname", None) or item.name,
        place=place_of(getattr(item, "function", None)),
        explicit=explicit,
        marked=marked,
        parent=item.cls.__name__ if getattr(item, "cls", None) is not None else None,
    )
