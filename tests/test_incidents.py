"""Several failures in one exception never change what is said of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

import loopsentry
from loopsentry import installation
from loopsentry.exceptions import walk_tree
from loopsentry.model import Clue
from loopsentry.report import Examiner


def caught(function: Callable[[], Any]) -> Exception:
    """Give what a function raises."""
    with pytest.raises(Exception) as failed:  # noqa: PT011 - whatever it is
        function()
    return failed.value


def foreign_future() -> Exception:
    """Await a future of another loop."""
    other = asyncio.new_event_loop()
    future = other.create_future()

    async def wait() -> None:
        await future

    try:
        return caught(lambda: asyncio.run(wait()))
    finally:
        other.close()


def foreign_lock() -> Exception:
    """Wait for a lock that belongs to a loop of before."""
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(hold(), hold())

    asyncio.run(both())
    return caught(lambda: asyncio.run(both()))


def nested_run() -> Exception:
    """Start a loop inside a running one."""

    async def inner() -> None:
        """Never runs."""

    async def outer() -> None:
        work = inner()
        try:
            asyncio.run(work)
        finally:
            work.close()

    return caught(lambda: asyncio.run(outer()))


def refused_call() -> Exception:
    """Call a closed loop."""
    loop = asyncio.new_event_loop()
    loop.close()
    return caught(lambda: loop.call_soon(print))


def innocent() -> Exception:
    """Fail for a reason of the program's own."""
    return caught(lambda: dict[str, int]()["sku-1"])


KINDS: dict[str, tuple[Callable[[], Exception], str | None]] = {
    "future": (foreign_future, "LS105"),
    "lock": (foreign_lock, "LS104"),
    "nested": (nested_run, "LS402"),
    "refused": (refused_call, "LS103"),
    "innocent": (innocent, None),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a tree: a failure, or two trees joined in one of the ways that Python has."""

    kind: str
    parts: tuple[Node, ...] = ()


leaves = st.builds(Node, st.sampled_from(sorted(KINDS)))
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        Node, st.sampled_from(["context", "cause", "group", "handled"]), st.tuples(inner, inner)
    ),
    max_leaves=5,
)


def build(node: Node, made: list[tuple[Exception, str | None]]) -> Exception:
    """Make the exception of a tree, and list its failures with what each is alone."""
    if not node.parts:
        make, code = KINDS[node.kind]
        exc = make()
        made.append((exc, code))
        return exc
    first, second = (build(part, made) for part in node.parts)
    if node.kind == "group":
        return ExceptionGroup("both", [first, second])
    if node.kind == "handled":
        return caught(lambda: _raise_while_handling(first, second))
    if node.kind == "cause":
        second.__cause__ = second.__cause__ or first
    else:
        second.__context__ = second.__context__ or first
    return second


def _raise_while_handling(first: Exception, second: Exception) -> None:
    try:
        raise first  # noqa: TRY301 - the way that is tried
    except Exception:
        raise second  # noqa: B904 - the way that is tried


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    """Give the installed examiner."""
    with loopsentry.install():
        installed = installation.current()
        assert installed is not None
        yield installed.examiner


def codes(examiner: Examiner, exc: Exception) -> dict[int, str]:
    """Judge each incident of an exception; give the code of each complaint that is told."""
    judged = {}
    for case in examiner.collector.collect(exc, Clue()):
        diagnosis = examiner.judge(case.evidence)
        if diagnosis is not None:
            judged[id(case.complaint.exc)] = diagnosis.code
    return judged


@given(tree=trees)
def test_incidents_do_not_mix(tree: Node) -> None:
    """Each failure in a tree is judged as it is alone, in every order and nesting."""
    with loopsentry.install():
        installed = installation.current()
        assert installed is not None
        made: list[tuple[Exception, str | None]] = []
        exc = build(tree, made)
        judged = codes(installed.examiner, exc)
        reachable = {id(node) for node in walk_tree(exc)}
        for failure, code in made:
            if id(failure) in reachable:
                assert judged.get(id(failure)) == code, (tree, failure)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_what_it_is_alone(examiner: Examiner, kind: str) -> None:
    """The failures that the generated trees are made of have the codes that they are to have."""
    make, code = KINDS[kind]
    assert list(codes(examiner, make()).values()) == ([code] if code else [])


@pytest.mark.parametrize(("first", "second"), [("future", "nested"), ("nested", "future")])
def test_the_others_are_listed(examiner: Examiner, first: str, second: str) -> None:
    """The gravest is told; the rest is counted with it, in the record and in verbose messages."""
    group = ExceptionGroup("both", [KINDS[first][0](), KINDS[second][0]()])
    diagnosis = examiner.diagnose(group)
    assert diagnosis is not None
    told = {diagnosis.code, *(code for code, _, _ in diagnosis.others)}
    assert told == {"LS105", "LS402"}
    examiner.options = type(examiner.options)(verbose=True)
    (other,) = diagnosis.others
    assert other[0] in examiner.render(diagnosis)


def test_an_innocent_connection_further_out_is_not_accused(examiner: Examiner) -> None:
    """A callback that a connection runs, and that calls a closed loop, says nothing of it."""
    engine = create_engine("sqlite://")

    def use() -> None:
        with engine.connect() as connection:
            connection.connection.driver_connection.create_function(  # type: ignore[union-attr]
                "call", 0, lambda: None
            )
            call_back(connection)

    def call_back(_connection: Any) -> None:
        raise refused_call()

    exc = caught(use)
    engine.dispose()
    for case in examiner.collector.collect(exc, Clue()):
        assert case.evidence.subject is None
        diagnosis = examiner.judge(case.evidence)
        assert diagnosis is None or diagnosis.certainty != "proven"
