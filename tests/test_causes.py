"""What each cause makes of evidence that is built by hand, and what none may make of any."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopsentry import catalog
from loopsentry.diagnosis import judge, weight_of
from loopsentry.model import (
    Birth,
    Evidence,
    Hang,
    HangKind,
    Holder,
    LoopInfo,
    ObjectKind,
    Operation,
    Phase,
    Place,
    Stage,
    Subject,
    Symptom,
    SymptomKind,
    Wait,
)

CAUSES = catalog.load_causes()
HERE = Place("/app/main.py", 3, "main")
A = LoopInfo(id=1, label="A", runner="asyncio.run", started_by=HERE, state="closed", thread="one")
B = LoopInfo(id=2, label="B", runner="asyncio.run", started_by=HERE, thread="two")
BORN = Birth(serial=1, kind="connection", loop=1, place=HERE)
CONNECTION = Subject(kind="connection", label="asyncpg connection", birth=BORN)
SIBLING = Operation(task="Task-2", function="f", file="/app/main.py", line=9, state="waiting")


def said(*kinds: SymptomKind, **more: Any) -> tuple[Symptom, ...]:
    """Give complaints of some kinds."""
    return tuple(Symptom(kind=k, library="asyncpg", type="E", text="t", **more) for k in kinds)


def crossed(*kinds: SymptomKind, alive: bool | None = False, **more: Any) -> Evidence:
    """Give evidence of a connection that is bound to another loop than it was used on."""
    known: dict[str, Any] = {
        "symptoms": said(*kinds),
        "subject": CONNECTION,
        "owner": replace(A, state="running" if alive else "closed"),
        "current": B,
        "same_loop": False,
        "owner_alive": alive,
    }
    return Evidence(**{**known, **more})


def shared(*kinds: SymptomKind, **more: Any) -> Evidence:
    """Give evidence of a connection that was used on its own loop."""
    loop = replace(A, state="running")
    known: dict[str, Any] = {
        "symptoms": said(*kinds),
        "subject": CONNECTION,
        "owner": loop,
        "current": loop,
        "same_loop": True,
        "owner_alive": True,
    }
    return Evidence(**{**known, **more})


LOCK = Subject(kind="primitive", label="asyncio.Lock", primitive=True)
FUTURE = Subject(kind="future", label="asyncio.Task")
CLIENT = Subject(kind="client", label="httpx client")
FOREIGN = replace(CONNECTION, birth=replace(BORN, pid=os.getpid() + 1))

#: Evidence, and what has to be said of it: the code and how sure it is.


def hanging(kind: HangKind) -> Evidence:
    """A loop that stands still."""
    waits = (Wait(task="Task-1", awaits="something"),)
    return Evidence(symptoms=(), hang=Hang(kind=kind, certainty="proven", waits=waits))


TABLE: dict[str, tuple[Evidence, str | None, str]] = {
    "foreign loop, owner closed": (crossed("foreign-loop"), "LS101", "proven"),
    "busy, owner closed": (crossed("busy"), "LS101", "proven"),
    "owner closed now, perhaps open then": (crossed("busy", alive=None), "LS101", "likely"),
    "owner alive": (crossed("foreign-loop", alive=True), "LS102", "proven"),
    "a client": (crossed("loop-closed", subject=CLIENT), "LS101", "proven"),
    "stopped before use": (crossed("refused", alive=True), "LS102", "proven"),
    "healed": (crossed("replaced"), "LS101", "proven"),
    "tidied up elsewhere": (crossed("foreign-loop", phase="cleanup"), "LS103", "proven"),
    "collected": (
        crossed("loop-closed", phase="cleanup", collected=True, handled=False),
        "LS103",
        "proven",
    ),
    "a lock": (crossed("foreign-loop", subject=LOCK), "LS104", "proven"),
    "a task": (crossed("foreign-loop", subject=FUTURE), "LS105", "proven"),
    "busy beside another task": (shared("busy", other=SIBLING), "LS201", "proven"),
    "busy, and the driver knows of another": (
        shared(symptoms=said("busy", under_way=True)),
        "LS201",
        "proven",
    ),
    "busy, where is not known": (
        shared("busy", current=None, same_loop=None, symptoms=said("busy", under_way=True)),
        "LS201",
        "likely",
    ),
    "a session that is connecting": (shared("provisioning"), "LS201", "likely"),
    "closed while at work": (
        shared("illegal-state", phase="cleanup", other=SIBLING),
        "LS202",
        "proven",
    ),
    "tidied up where two tasks share it": (
        shared("illegal-state", phase="cleanup", other=SIBLING, shared=True),
        "LS201",
        "likely",
    ),
    "rolled back while it connects": (
        shared("provisioning", phase="cleanup", other=SIBLING),
        "LS202",
        "proven",
    ),
    "a block at work for another task": (shared("ended", other=SIBLING), "LS201", "proven"),
    "a block that the program ended": (shared("ended"), "LS204", "proven"),
    "cancelled and not awaited": (
        shared("busy", other=replace(SIBLING, state="cancelled")),
        "LS203",
        "proven",
    ),
    "cut short, recorded": (
        shared("busy", cancelled=True, cancellation=HERE),
        "LS203",
        "proven",
    ),
    "cut short, in the chain": (shared("invalid-transaction", cancelled=True), "LS203", "likely"),
    "given back": (shared("released"), "LS204", "proven"),
    "forked": (crossed("foreign-loop", subject=FOREIGN), "LS301", "proven"),
    "no greenlet": (shared("missing-greenlet"), "LS401", "proven"),
    "a loop in a loop": (Evidence(symptoms=said("nested-run")), "LS402", "likely"),
    "hung up": (shared("disconnected", closed=True), "LS501", "proven"),
    "closed by the program": (
        shared("disconnected", closed=True, closing="recorded", closed_at=HERE),
        "LS204",
        "proven",
    ),
    "closed by the program, at work": (
        shared(
            "disconnected",
            closing="recorded",
            closed_at=HERE,
            symptoms=said("disconnected", sent=True),
        ),
        "LS202",
        "proven",
    ),
    "closed by the program on another loop": (
        crossed("disconnected", closed=True, closing="recorded", closed_at=HERE),
        "LS204",
        "proven",
    ),
    "a pool with nothing left": (
        shared("exhausted", holders=(Holder(label="AsyncSession"),)),
        "LS604",
        "proven",
    ),
    "asleep": (hanging("lost-wakeup"), "LS601", "proven"),
    "blocked": (hanging("self-deadlock"), "LS602", "proven"),
    "cancelled in vain": (hanging("unfinished-cancellation"), "LS603", "proven"),
    "busy, and nothing more": (shared("busy"), "LS000", "undetermined"),
    "busy, and no object": (Evidence(symptoms=said("busy")), "LS000", "undetermined"),
    "hung up, of nobody knows whom": (Evidence(symptoms=said("disconnected")), None, ""),
    "tolerant": (
        crossed("foreign-loop", subject=replace(CONNECTION, tolerant=True)),
        None,
        "",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_evidence_is_judged(name: str) -> None:
    """Each line of the table has the code and the certainty that stand beside it."""
    evidence, code, certainty = TABLE[name]
    judged = judge(evidence, CAUSES)
    found = (judged[0].code, judged[1].certainty) if judged is not None else (None, "")
    assert found == (code, certainty)


def test_every_cause_is_in_the_table() -> None:
    """No cause is without evidence that it is found by."""
    assert {cause.code for cause in CAUSES} == {code for _, code, _ in TABLE.values() if code}


# generated --------------------------------------------------------------------------------

loops = st.sampled_from([None, A, B, replace(A, state="running"), replace(A, state="stopped")])
births = st.sampled_from([None, BORN, replace(BORN, recorded=False), FOREIGN.birth])
subjects = st.one_of(
    st.none(),
    st.builds(
        Subject,
        kind=st.sampled_from(get_args(ObjectKind)),
        label=st.just("object"),
        birth=births,
        tolerant=st.booleans(),
        primitive=st.booleans(),
    ),
)
symptoms = st.builds(
    Symptom,
    kind=st.sampled_from(get_args(SymptomKind)),
    library=st.just("asyncpg"),
    type=st.just("E"),
    text=st.just("t"),
    under_way=st.booleans(),
    by_server=st.booleans(),
    about=st.sampled_from([None, "future", "primitive"]),
)
evidence = st.builds(
    Evidence,
    symptoms=st.lists(symptoms, min_size=1, max_size=3).map(tuple),
    subject=subjects,
    owner=loops,
    current=loops,
    same_loop=st.sampled_from([None, True, False]),
    owner_alive=st.sampled_from([None, True, False]),
    phase=st.sampled_from(get_args(Phase)),
    stage=st.sampled_from(get_args(Stage)),
    collected=st.booleans(),
    other=st.sampled_from([None, SIBLING]),
    cancelled=st.booleans(),
    cancellation=st.sampled_from([None, HERE]),
    closed=st.booleans(),
    loop_traced=st.booleans(),
    handled=st.booleans(),
)


@pytest.mark.filterwarnings("ignore:It looks like `register_random`")  # hypothesis, of itself
@given(found=evidence)
def test_nothing_is_proven_without_facts_of_the_object(found: Evidence) -> None:
    """Without an object, or a record of what befell it, no cause is ever proven."""
    bare = replace(found, subject=None, cancellation=None, loop_traced=False)
    judged = judge(bare, CAUSES)
    assert judged is None or judged[1].certainty != "proven"


@given(found=evidence)
def test_busy_alone_never_proves_a_crossing(found: Evidence) -> None:
    """A crossing is proven of two loops of that object only, never of a text."""
    judged = judge(replace(found, same_loop=None), CAUSES)
    if judged is not None and judged[0].code in {"LS101", "LS102", "LS103", "LS104", "LS105"}:
        assert judged[1].certainty != "proven"


@given(found=evidence, told=symptoms)
def test_no_two_causes_weigh_the_same(found: Evidence, told: Symptom) -> None:
    """Of one complaint one cause is the most likely: the order of the causes decides nothing."""
    about = told.about if told.kind == "foreign-loop" else None  # asyncio alone says that
    one = replace(found, symptoms=(replace(told, about=about),))
    subject = found.subject
    if subject is not None and subject.kind not in ("primitive", "pool"):
        one = replace(one, subject=replace(subject, primitive=False))
    verdicts = ((cause.code, cause.match(one)) for cause in CAUSES)
    weights = sorted((weight_of(told), code) for code, told in verdicts if told is not None)
    assert len(weights) < 2 or weights[-1][0] != weights[-2][0], (weights, one)


@given(found=evidence)
def test_every_verdict_can_be_told(found: Evidence) -> None:
    """Whatever is judged has a headline or a title, a cause that says why, and plain notes."""
    judged = judge(found, CAUSES)
    if judged is not None:
        cause, verdict = judged
        assert verdict.headline or cause.title
        assert all("\n" not in note for note in verdict.notes)
