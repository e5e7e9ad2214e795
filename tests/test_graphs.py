"""Generated exception graphs: whatever they are made of, nothing raises and nothing is claimed."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

import loopsentry
from loopsentry import _safely, annotation, installation
from loopsentry.model import Diagnosis
from loopsentry.renderers import json, plain, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAPHS = 2_000
SECONDS_EACH = 0.05

TEXTS = (
    "Task <Task pending name='Task-7'> got Future <Future pending> attached to a different loop",
    "<asyncio.locks.Lock object at 0x7f> is bound to a different event loop",
    "Event loop is closed",
    "unable to perform operation on <TCPTransport closed=True>; the handler is closed",
    "cannot perform operation: another operation is in progress",
    "cannot use Connection.transaction() in a manually started transaction",
    "connection was closed in the middle of operation",
    "This session is provisioning a new connection; concurrent operations are not permitted",
    "asyncio.run() cannot be called from a running event loop",
    "connection is closed",
    "\ud800 a lone surrogate, a \x1b[31mcolour\x1b[0m and a \x00 byte",
    "",
    "x" * 100_000,
)


class HostileTextError(RuntimeError):
    """Cannot be turned into text or compared."""

    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __bool__(self) -> bool:
        raise RuntimeError("no bool")


class HostileStr(str):
    """A text that is none of str's own."""

    __slots__ = ()

    def __contains__(self, part: object) -> bool:
        raise RuntimeError("no contains")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no format")

    def __str__(self) -> str:
        raise RuntimeError("no str")


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
    """Raises whenever anything is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class HostileNotesError(RuntimeError):
    """Takes no note."""

    def add_note(self, note: str) -> None:
        """Refuse it."""
        raise RuntimeError(f"no {note[:3]}")


class OwnArgumentsError(RuntimeError):
    """Takes two arguments and keeps none."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__()
        self.orig = first
        self.code = second


def driver_errors() -> list[type[Exception]]:
    """Give the errors of the driver and of its adapter."""
    import asyncpg
    from sqlalchemy import exc

    return [asyncpg.InterfaceError, asyncpg.PostgresError, exc.InvalidRequestError, exc.SAWarning]


HOSTILE = (HostileTextError, HostileFieldsError, HostileAttributesError, HostileNotesError)
KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    OSError,
    KeyError,
    TimeoutError,
    asyncio.CancelledError,
    *HOSTILE,
    *driver_errors(),
)
ARGUMENTS: tuple[tuple[Any, ...], ...] = (
    (),
    (1, 2),
    (None,),
    (b"attached to a different loop",),
    (HostileStr("attached to a different loop"),),
    ([],),
    (2013, "Lost connection"),
)
NOTES: tuple[Any, ...] = (
    [],
    [1, None, b""],
    "a note",
    None,
    ("tuple",),
    {"a": 1},
    [HostileStr("x")],
)


def make_node(chance: random.Random) -> BaseException:
    """Make one exception, raised or not."""
    if chance.random() < 0.05:
        return OwnArgumentsError(chance.choice(TEXTS), HostileTextError())
    kind = chance.choice(KINDS)
    arguments = (chance.choice(TEXTS),) if chance.random() < 0.7 else chance.choice(ARGUMENTS)
    try:
        exc = kind(*arguments)
    except TypeError:  # this class wants one text
        exc = kind("attached to a different loop")
    if chance.random() < 0.5:
        try:
            raise exc  # noqa: TRY301 - to give it a traceback
        except BaseException:  # noqa: S110 - and nothing else
            pass
    if chance.random() < 0.3:
        assign(exc, "__notes__", copy.copy(chance.choice(NOTES)))
    return exc


def assign(exc: BaseException, name: str, value: Any) -> None:
    """Set a field as the interpreter does, past what the class says of it."""
    if name in ("__cause__", "__context__"):
        vars(BaseException)[name].__set__(exc, value)
    else:
        vars(BaseException)["__dict__"].__get__(exc)[name] = value


def make_graph(chance: random.Random) -> BaseException:
    """Make a graph of exceptions, with cycles, groups and originals."""
    nodes = [make_node(chance) for _ in range(chance.choice((1, 2, 3, 5, 8, 40)))]
    for _ in range(chance.randrange(3)):
        members = chance.sample(nodes, min(len(nodes), 3))
        nodes.append(BaseExceptionGroup("several", members))
    for _ in range(2 * len(nodes)):
        first, second = chance.choice(nodes), chance.choice(nodes)
        assign(first, chance.choice(("__cause__", "__context__", "orig")), second)
    return chance.choice(nodes)


def render(diagnosis: Diagnosis) -> None:
    """Put a diagnosis into every form."""
    assert json.render(diagnosis).encode("utf-8", "surrogatepass").count(b"\n") == 0
    assert plain.render(diagnosis).isascii()
    assert terminal.render(diagnosis).plain


@pytest.fixture(autouse=True)
def _uncomplaining(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which loopsentry had to log a failure of its own."""
    _safely._reported.clear()
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("seed", range(4))
def test_no_graph_makes_anything_raise(seed: int) -> None:
    """Diagnosing, annotating and rendering never raise, are quick, and prove nothing of nothing."""
    chance = random.Random(seed)  # noqa: S311 - it decides no secret
    diagnosed = 0
    loopsentry.install()
    for number in range(GRAPHS // 4):
        exc = make_graph(chance)
        started = time.thread_time()
        diagnosis = loopsentry.diagnose(exc)
        taken = time.thread_time() - started
        assert taken < SECONDS_EACH, f"graph {number} of seed {seed} took {taken} s"
        diagnosed += diagnosis.facts != ()
        assert diagnosis.certainty != "proven", f"graph {number} of seed {seed}"
        render(diagnosis)
        annotation.annotate(exc, diagnosis, rewrite=True)
        annotation.annotate(exc, diagnosis, rewrite=True)
    assert diagnosed > GRAPHS // 40


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_class_is_no_obstacle(kind: type[Exception]) -> None:
    """An exception whose class refuses everything is diagnosed by what BaseException keeps."""
    exc = kind("Event loop is closed")
    diagnosis = loopsentry.diagnose(exc)
    annotation.annotate(exc, diagnosis, rewrite=True)


@pytest.mark.parametrize("notes", NOTES, ids=repr)
def test_odd_notes_are_left_alone(notes: Any) -> None:
    """Notes that are no list of texts neither break a report nor are replaced."""
    exc = RuntimeError("got Future <x> attached to a different loop")
    assign(exc, "__notes__", notes)
    diagnosis = loopsentry.diagnose(exc)
    assert diagnosis is not None
    annotation.annotate(exc, diagnosis, rewrite=True)
    if not isinstance(notes, list):
        assert vars(exc)["__notes__"] is notes


@pytest.mark.parametrize(
    "exc",
    [
        OSError(5, "Event loop is closed"),
        KeyError("Event loop is closed"),
        ExceptionGroup("several", [RuntimeError("Event loop is closed")]),
        RuntimeError("Event loop is closed", 2),
        RuntimeError(HostileStr("Event loop is closed")),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_only_a_plain_message_is_rewritten(exc: Exception) -> None:
    """A message that is not one plain text, shown as it is, stays as it was."""
    diagnosis = loopsentry.diagnose(RuntimeError("Event loop is closed"))
    assert diagnosis is not None
    before = exc.args
    annotation.annotate(exc, diagnosis, rewrite=True)
    if not isinstance(exc, KeyError):
        assert exc.args is before or exc.args == before
    assert exc.__notes__


def test_an_exit_is_never_touched() -> None:
    """CancelledError, KeyboardInterrupt and other BaseExceptions get no note and no line."""
    diagnosis = loopsentry.diagnose(RuntimeError("Event loop is closed"))
    assert diagnosis is not None
    for kind in (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
        exc = kind("Event loop is closed")
        annotation.annotate(exc, diagnosis, rewrite=True)
        assert exc.args == ("Event loop is closed",)
        assert not hasattr(exc, "__notes__")


def test_an_object_that_refuses_to_be_looked_at_is_passed_over() -> None:
    """An argument of a library's function whose `__class__` raises does not end the examination."""

    class Proxy:
        """As a context-local proxy outside its context."""

        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("working outside of context")

        def __deepcopy__(self, memo: object) -> Any:
            raise RuntimeError("got Future <x> attached to a different loop")

    with pytest.raises(RuntimeError, match="attached") as failed:
        copy.deepcopy(Proxy())
    diagnosis = loopsentry.diagnose(failed.value)
    assert diagnosis is not None
    assert diagnosis.certainty == "undetermined"


def test_an_odd_report_is_still_told() -> None:
    """A report whose exception takes no note still reaches the subscribers."""
    heard: list[Diagnosis] = []
    loopsentry.install()
    loopsentry.subscribe(heard.append)
    installed = installation.current()
    assert installed is not None
    exc = HostileNotesError("Event loop is closed")
    installed.examiner.report(exc)
    assert [diagnosis.code for diagnosis in heard] == ["LS000"]
