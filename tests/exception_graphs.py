"""Strategies for exception graphs: cycles, groups, deep stacks, hostile classes, odd modules."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    "Task <Task pending name='Task-7'> got Future <Future pending> attached to a different loop",
    "<asyncio.locks.Lock object at 0x7f> is bound to a different event loop",
    "Event loop is closed",
    "unable to perform operation on <TCPTransport closed=True>; the handler is closed",
    "cannot perform operation: another operation is in progress",
    "cannot use Connection.transaction() in a manually started transaction",
    "cannot call Connection.fetch(): connection has been released back to the pool",
    "connection was closed in the middle of operation",
    "terminating connection due to administrator command",
    "This session is provisioning a new connection; concurrent operations are not permitted",
    "This Connection is closed",
    "asyncio.run() cannot be called from a running event loop",
    "connection is closed",
    "\ud800 a lone surrogate, a \x1b[31mcolour\x1b[0m and a \x00 byte",
    "",
    "Event loop is closed, [bold]or[/bold] not, " * 3_000,
    "name='" * 50_000 + " attached to a different loop",
    "x" * 1_000_000,
)


class HostileTextError(RuntimeError):
    """Cannot be turned into text or compared."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("no text, no comparison")

    __str__ = __repr__ = __eq__ = __hash__ = __bool__ = __format__ = _refuse


class HostileStr(str):
    """A text that is none of str's own."""

    __slots__ = ()

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("no such text")

    __contains__ = __eq__ = __hash__ = __format__ = __str__ = __len__ = __iter__ = _refuse
    startswith = partition = encode = split = _refuse  # type: ignore[assignment]


class HostileFieldsError(RuntimeError):
    """Raises whenever one of its fields is read or set."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("no field")

    args = property(_refuse, _refuse)
    orig = property(_refuse, _refuse)
    __cause__ = property(_refuse, _refuse)
    __context__ = property(_refuse, _refuse)
    __traceback__ = property(_refuse, _refuse)
    __notes__ = property(_refuse, _refuse)


class HostileAttributesError(RuntimeError):
    """Raises whenever anything is asked of it, `__class__` too."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class HostileNotesError(RuntimeError):
    """Takes no note."""

    def add_note(self, note: str) -> None:
        """Refuse it."""
        raise RuntimeError(f"no {note[:3]}")


class OwnArgumentsError(RuntimeError):
    """Takes two arguments and keeps none."""

    def __init__(self, first: object = None, second: object = None) -> None:
        super().__init__()
        self.orig = first
        self.code = second


class OddModuleError(RuntimeError):
    """Says of its class that it has no name."""

    __module__ = HostileStr("asyncpg")
    __qualname__ = HostileStr("InterfaceError")


class HostileObject:
    """Raises whenever anything is asked of it: a proxy outside its context, for one."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("no comparison")

    __eq__ = __hash__ = __bool__ = __repr__ = _refuse

    def __copy__(self) -> Any:
        return self


class Pretender:
    """Says that it is an event loop, and everything else, and is nothing of it."""

    __class__ = asyncio.BaseEventLoop  # type: ignore[assignment]

    def __getattr__(self, _name: str) -> Any:
        return self

    __hash__ = None  # type: ignore[assignment]


def library_errors() -> list[type[Exception]]:
    """Give the errors of the driver and of SQLAlchemy that are read for their kind."""
    import asyncpg
    from sqlalchemy import exc

    return [
        asyncpg.InterfaceError,
        asyncpg.PostgresError,
        exc.InvalidRequestError,
        exc.IllegalStateChangeError,
        exc.PendingRollbackError,
        exc.ResourceClosedError,
        exc.MissingGreenlet,
        exc.SAWarning,
    ]


HOSTILE = (HostileTextError, HostileFieldsError, HostileAttributesError, HostileNotesError)
KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    OSError,
    KeyError,
    TimeoutError,
    asyncio.CancelledError,
    KeyboardInterrupt,
    OwnArgumentsError,
    OddModuleError,
    *HOSTILE,
    *library_errors(),
)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (),
    (1, 2),
    (None,),
    (b"attached to a different loop",),
    (HostileStr("attached to a different loop"),),
    (HostileObject(),),
    ([],),
    (2013, "Lost connection"),
)
NOTES: tuple[Any, ...] = (
    [],
    [1, None, b"", HostileObject()],
    "a note",
    None,
    ("tuple",),
    {"a": 1},
    [HostileStr("x")],
    ["error[LS"],
    HostileObject(),
)
OBJECTS: tuple[Any, ...] = (None, 1, [], HostileObject(), Pretender(), HostileStr("x"), object)
MODULES: tuple[Any, ...] = (
    "asyncio.base_events",
    "asyncpg.connection",
    "anyio.from_thread",
    "pytest_asyncio.plugin",
    "sqlalchemy.ext.asyncio.session",
    "sqlalchemy.pool.base",
    "starlette.testclient",
    "application",
    HostileStr("sqlalchemy"),
    HostileObject(),
    None,
)
FUNCTIONS = (
    "__aenter__",
    "__aexit__",
    "__enter__",
    "_check_closed",
    "_checkout",
    "_do_get",
    "_finalize_fairy",
    "_get_loop",
    "_run_module_code",
    "close",
    "commit",
    "gather",
    "greenlet_spawn",
    "run",
    "run_until_complete",
)
FILES = (
    str(Path(sysconfig.get_path("purelib"), "library", "module.py")),
    str(Path("application.py").absolute()),
    "relative.py",
    "protocol.pyx",
    "<string>",
    "",
    "no\x00file\ud800.py",
)

Frame = tuple[str, str, Any, Any]  # file, function, module, first argument
_CODE = """
def {function}(self, loop, task, is_gc_cleanup, exc, inner):
    gather = create_task = run_until_complete = loop
    if inner is not None:
        inner()
    raise exc
"""
_compiled: dict[tuple[str, str], Any] = {}


def raise_within(exc: BaseException, frames: list[Frame]) -> None:
    """Raise an exception below frames of these files, functions, modules and objects."""

    def call(index: int) -> None:
        file, function, module, target = frames[index]
        code = _compiled.get((file, function))
        if code is None:
            source = _CODE.format(function=function)
            code = _compiled[file, function] = compile(source, file, "exec")
        names: dict[str, Any] = {"__name__": module}
        exec(code, names)  # noqa: S102 - it is our own source
        inner = (lambda: call(index + 1)) if index + 1 < len(frames) else None
        names[function](target, target, target, target, exc, inner)

    call(0)


def recurse(exc: BaseException, depth: int) -> None:
    """Raise an exception from as many frames."""
    if depth:
        recurse(exc, depth - 1)
    raise exc


@dataclass(frozen=True, slots=True)
class Node:
    """What one exception is made of: numbers in the tables above, which can be shown and compared.

    Attributes:
        kind: its class.
        argument: its arguments, counted through the texts and then the odd ones.
        depth: how many frames it is raised from, None if it is never raised.
        frames: frames of libraries and odd modules that it passes: file, function, module, object.
        notes: what stands in `__notes__`, None for nothing.
    """

    kind: int
    argument: int
    depth: int | None
    frames: list[tuple[int, int, int, int]]
    notes: int | None

    def build(self) -> BaseException:
        """Make the exception, and raise it if it is to be raised."""
        kind = KINDS[self.kind]
        odd = self.argument - len(TEXTS)
        arguments = (TEXTS[self.argument],) if odd < 0 else ARGUMENTS[odd]
        try:
            exc = kind(*arguments)
        except TypeError:  # this class wants one text
            exc = kind("attached to a different loop")
        frames = [(FILES[a], FUNCTIONS[b], MODULES[c], OBJECTS[d]) for a, b, c, d in self.frames]
        if self.depth is not None:
            with contextlib.suppress(BaseException):
                raise_within(exc, frames) if frames else recurse(exc, self.depth)
        if self.notes is not None:
            assign(exc, "__notes__", copy.copy(NOTES[self.notes]))
        return exc


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph of exceptions.

    Attributes:
        nodes: the exceptions.
        groups: exception groups: the number of the first member, and how often three members recur.
        links: the number of an exception, the field that is set on it, and the number of another.
        chosen: the exception that is examined.
        chained: how many exceptions are chained in front of that one.
    """

    nodes: list[Node]
    groups: list[tuple[int, int]]
    links: list[tuple[int, str, int]]
    chosen: int
    chained: int

    def build(self) -> BaseException:
        """Make the exceptions, and link them as the interpreter never would."""
        nodes = [node.build() for node in self.nodes]
        for first, times in self.groups:
            members = [nodes[(first + i) % len(nodes)] for i in range(3)]
            nodes.append(BaseExceptionGroup("several", members * times))
        for number, name, other in self.links:
            assign(nodes[number % len(nodes)], name, nodes[other % len(nodes)])
        chosen = nodes[self.chosen % len(nodes)]
        for _ in range(self.chained):
            outer = RuntimeError("Event loop is closed")
            assign(outer, "__context__", chosen)
            chosen = outer
        return chosen


def assign(exc: BaseException, name: str, value: Any) -> None:
    """Set a field as the interpreter does, past what the class says of it."""
    if name in ("__cause__", "__context__"):
        vars(BaseException)[name].__set__(exc, value)
    else:
        vars(BaseException)["__dict__"].__get__(exc)[name] = value


def _one_of(table: Sequence[Any]) -> st.SearchStrategy[int]:
    return st.integers(0, len(table) - 1)


_numbers = st.integers(0, 15)
_nodes = st.builds(
    Node,
    kind=_one_of(KINDS),
    argument=_one_of(TEXTS + ARGUMENTS),
    depth=st.sampled_from((0, None, 1, 20, 400)),
    frames=st.lists(
        st.tuples(_one_of(FILES), _one_of(FUNCTIONS), _one_of(MODULES), _one_of(OBJECTS)),
        max_size=4,
    ),
    notes=st.none() | _one_of(NOTES),
)
graphs = st.builds(
    Graph,
    nodes=st.lists(_nodes, min_size=1, max_size=8),
    groups=st.lists(st.tuples(_numbers, st.sampled_from((1, 1, 1, 700))), max_size=2),
    links=st.lists(
        st.tuples(_numbers, st.sampled_from(("__cause__", "__context__", "orig")), _numbers),
        max_size=16,
    ),
    chosen=_numbers,
    chained=st.sampled_from((0, 0, 0, 0, 300)),
)
