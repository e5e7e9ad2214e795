"""Generated exception graphs: whatever they are made of, nothing raises and nothing is claimed."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import TYPE_CHECKING, Any

import pytest
from exception_graphs import HOSTILE, NOTES, Graph, HostileNotesError, HostileStr, assign, graphs
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import loopsentry
from loopsentry import _safely, annotation, catalog, installation
from loopsentry.model import Diagnosis
from loopsentry.renderers import json, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 0.05
ATTEMPTS = 3
RENDERERS = catalog.load("renderers")


def examine(exc: BaseException) -> Diagnosis:
    """Diagnose an exception and put the diagnosis into every form there is."""
    diagnosis = loopsentry.diagnose(exc)
    for renderer in RENDERERS:
        assert renderer.render(diagnosis), renderer.__name__
    return diagnosis


def examine_quickly(exc: BaseException) -> Diagnosis:
    """Examine an exception; fail if that takes the processor too long, however often it is done.

    One that is long for once met the garbage collector or memory that had to be found first.
    """
    taken = []
    for _ in range(ATTEMPTS):
        started = time.thread_time()
        diagnosis = examine(exc)
        taken.append(time.thread_time() - started)
        if taken[-1] < SECONDS:
            return diagnosis
    raise AssertionError(f"{ATTEMPTS} examinations took {taken} seconds")


@pytest.fixture(autouse=True)
def _uncomplaining(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which loopsentry had to log a failure of its own."""
    _safely._reported.clear()
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@given(graph=graphs, inside=st.booleans())
def test_no_graph_makes_anything_raise(graph: Graph, inside: bool) -> None:
    """Diagnosing and rendering never raise, are quick, and prove nothing of nothing."""
    loopsentry.install()
    exc = graph.build()
    diagnosis = perhaps_inside_a_loop(lambda: examine_quickly(exc), inside=inside)
    assert diagnosis.certainty != "proven"
    assert json.render(diagnosis).encode("utf-8", "surrogatepass").count(b"\n") == 0
    assert plain.render(diagnosis, verbose=True).isascii()
    installed = installation.current()
    assert installed is not None
    installed.examiner.report(exc)
    installed.examiner.report(exc)
    annotation.annotate(exc, diagnosis, exc, rewrite=True, tell=lambda: "told")
    assert _safely._reported == set()


def perhaps_inside_a_loop(function: Callable[[], Diagnosis], *, inside: bool) -> Diagnosis:
    """Call a function on an event loop, or without one."""

    async def call() -> Diagnosis:
        return function()

    return asyncio.run(call()) if inside else function()


@pytest.mark.slow
def test_the_graphs_are_not_all_alike() -> None:
    """The generated graphs are diagnosed with the causes that words and frames can suggest."""
    codes: set[str] = set()

    @settings(max_examples=400, phases=[Phase.generate], derandomize=True)
    @given(graph=graphs)
    def collect(graph: Graph) -> None:
        exc = graph.build()
        codes.add(perhaps_inside_a_loop(lambda: loopsentry.diagnose(exc), inside=True).code)

    collect()
    assert {"LS000", "LS105", "LS401", "LS402"} <= codes, codes


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_class_is_no_obstacle(kind: type[Exception]) -> None:
    """An exception whose class refuses everything is diagnosed by what BaseException keeps."""
    exc = kind("Event loop is closed")
    diagnosis = loopsentry.diagnose(exc)
    annotation.annotate(exc, diagnosis, exc, rewrite=True, tell=lambda: "told")


@pytest.mark.parametrize("number", range(len(NOTES)))
def test_odd_notes_are_left_alone(number: int) -> None:
    """Notes that are no list of texts neither break a report nor are replaced."""
    notes = copy.copy(NOTES[number])
    exc = RuntimeError("got Future <x> attached to a different loop")
    assign(exc, "__notes__", notes)
    diagnosis = loopsentry.diagnose(exc)
    assert diagnosis is not None
    annotation.annotate(exc, diagnosis, exc, rewrite=True, tell=lambda: "told")
    if type(notes) is not list:
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
    annotation.annotate(exc, diagnosis, exc, rewrite=True, tell=lambda: "told")
    if not isinstance(exc, KeyError):
        assert exc.args is before or exc.args == before
    assert exc.__notes__


def test_an_exit_is_never_touched() -> None:
    """CancelledError, KeyboardInterrupt and other BaseExceptions get no note and no line."""
    diagnosis = loopsentry.diagnose(RuntimeError("Event loop is closed"))
    assert diagnosis is not None
    for kind in (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
        exc = kind("Event loop is closed")
        annotation.annotate(exc, diagnosis, exc, rewrite=True, tell=lambda: "told")
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
