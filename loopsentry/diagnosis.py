"""From `Evidence` to the one cause that accounts for most facts, and the cures that fit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from string import Template

from .model import (
    Birth,
    Diagnosis,
    Evidence,
    Fix,
    LoopInfo,
    Operation,
    Original,
    Place,
    Verdict,
)

_SURENESS = {"proven": 2, "likely": 1, "undetermined": 0}
FIXES_OFFERED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A root cause as it stands on its shelf.

    Attributes:
        code: "LS101".
        name: "closed-loop".
        title: what is wrong, in one line.
        explanation: why it happens and what helps, Markdown.
        match: judges evidence; None where the cause does not apply.
    """

    code: str
    name: str
    title: str
    explanation: str
    match: Callable[[Evidence], Verdict | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A mistake and its cure as two programs that run.

    Attributes:
        cause: the cause with which the first one is diagnosed, and with no other.
        broken: a program that fails.
        fixed: the same program, cured.
    """

    cause: str
    broken: str
    fixed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A fix as it stands on its shelf.

    Attributes:
        id: its name.
        title: one line that says what to do.
        cures: the causes it cures.
        rank: the lower, the earlier it is offered.
        first_in: contexts in which it comes before all that do not name the context.
        first_for: operations and conditions for which it comes before all that do not name them.
        only_in: contexts in which alone it makes sense; empty for all.
        needs: conditions that have to hold; `Evidence.conditions` has the words.
        unless: conditions of which none may hold.
        wording: other words for a cause or under a condition, by its name: `title`, `snippet`,
            `reason`.
        objects: kinds of object it helps with; empty for all.
        reason: why it helps.
        snippet: code with `$engine`, `$function` and `$other` for the reader's names.
        text: the long version, Markdown.
        examples: programs that it cures, the first for the first of its causes.
    """

    id: str
    title: str
    cures: tuple[str, ...]
    rank: int
    snippet: str
    reason: str
    text: str
    examples: tuple[Example, ...]
    first_in: tuple[str, ...] = ()
    first_for: tuple[str, ...] = ()
    only_in: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    wording: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def say(self, word: str, told: Sequence[str]) -> str:
        """The title, snippet or reason, in the words for the first of these names that has any."""
        found = next((self.wording[name] for name in told if name in self.wording), {})
        return str(found.get(word, getattr(self, word))).rstrip("\n")


def judge(evidence: Evidence, causes: Iterable[Cause]) -> tuple[Cause, Verdict] | None:
    """Choose the surest verdict; among equally sure ones that which explains most."""
    verdicts = [(cause, verdict) for cause in causes if (verdict := cause.match(evidence))]
    if not verdicts:
        return None
    return max(verdicts, key=lambda pair: weight_of(pair[1]))


def weight_of(verdict: Verdict) -> tuple[int, int]:
    """How much speaks for a verdict; no two causes may weigh the same for one complaint."""
    return _SURENESS[verdict.certainty], len(verdict.explains)


def gravity(diagnosis: Diagnosis) -> tuple[bool, bool, int]:
    """Orders diagnoses, the gravest first: what is known, what failed, what is surest."""
    return (
        diagnosis.certainty == "undetermined",
        diagnosis.severity == "warning",
        -_SURENESS[diagnosis.certainty],
    )


def diagnose(
    evidence: Evidence, causes: Iterable[Cause], remedies: Sequence[Remedy], version: str
) -> Diagnosis | None:
    """Judge the evidence and write down what it says; None if no cause applies."""
    first = evidence.first_failure
    follows = evidence.has("invalid-transaction") or evidence.undone
    if follows and first is not None and first.diagnosis is not None:
        return echo(evidence, first.diagnosis)
    judged = judge(evidence, causes)
    if judged is None:
        return None
    cause, verdict = judged
    if _is_echo(evidence) and first is not None and first.diagnosis is not None:
        return echo(evidence, first.diagnosis)
    return Diagnosis(
        id=key_of(evidence, cause.code),
        version=version,
        time=datetime.now(UTC),
        pid=evidence.pid,
        code=cause.code,
        cause=cause.name,
        title=verdict.headline or cause.title,
        certainty=verdict.certainty,
        severity=verdict.severity,
        phase=evidence.phase,
        context=evidence.contexts[0] if evidence.contexts else "unknown",
        framework=evidence.framework,
        nowhere=evidence.nowhere,
        used_at=evidence.used_at,
        stack=evidence.stack,
        current_task=evidence.task,
        operation=evidence.operation,
        owner_loop=_owner(evidence, verdict),
        current_loop=evidence.current,
        object=evidence.subject,
        engine=evidence.engine,
        other_operation=evidence.other if verdict.certainty != "undetermined" else None,
        first_failure=replace(first, diagnosis=None) if first else None,
        data=verdict.data,
        facts=facts_of(evidence),
        notes=verdict.notes,
        fixes=choose_fixes(evidence, cause.name, remedies),
        original=evidence.original,
        waits=evidence.hang.waits if evidence.hang is not None else (),
        holders=evidence.holders,
    )


def _owner(evidence: Evidence, verdict: Verdict) -> LoopInfo | None:
    """The owner; where only one loop has part in it, that loop owns what has no connection yet."""
    if evidence.owner is None and verdict.one_loop and evidence.current is not None:
        return replace(evidence.current, label="A")
    return evidence.owner


def nothing_known(exc_type: str, version: str) -> Diagnosis:
    """The diagnosis of an exception in which nothing concerns event loops or sharing."""
    return Diagnosis(
        id="LS000/-",
        version=version,
        time=datetime.now(UTC),
        pid=os.getpid(),
        code="LS000",
        cause="undetermined",
        title="nothing in this exception concerns event loops",
        certainty="undetermined",
        severity="error",
        phase="use",
        facts=("no library complained of a loop, of sharing or of a lost connection",),
        original=Original(type=exc_type, message=""),
    )


def _is_echo(evidence: Evidence) -> bool:
    """Whether this can follow from an earlier failure that left the object busy."""
    return evidence.same_loop is not False and evidence.left_unusable


def echo(evidence: Evidence, first: Diagnosis) -> Diagnosis:
    """Say again what made the object unusable; the present failure follows from it."""
    failure = evidence.first_failure
    here = f"; its echo surfaced at {evidence.used_at.short}" if evidence.used_at else ""
    return replace(
        first,
        time=datetime.now(UTC),
        first_failure=replace(failure, diagnosis=None) if failure else None,
        notes=(*first.notes[:1], f"this is not the first failure{here}"),
        facts=facts_of(evidence),
        original=evidence.original,
    )


def key_of(evidence: Evidence, code: str) -> str:
    """The key of a mistake: its cause and its places, however many loops come and go.

    Places are where the object was opened, where it was used, and who started both loops. It is the
    same in each process that runs the same code.
    """
    birth = evidence.subject.birth if evidence.subject else None
    loops = (evidence.owner, evidence.current)
    starters = [loop.started_by if loop is not None else None for loop in loops]
    places = (birth.place if birth else None, evidence.used_at, *starters)
    words = [f"{place.file}:{place.line}" if place is not None else "-" for place in places]
    label = evidence.subject.label if evidence.subject else "-"
    digest = hashlib.blake2s("\n".join((*words, label)).encode("utf-8", "surrogatepass"))
    return f"{code}-{digest.hexdigest()[:12]}"


def facts_of(evidence: Evidence) -> tuple[str, ...]:
    """What was found, in words, whether or not it decides anything."""
    facts = [f"{symptom.library} complained: {symptom.kind}" for symptom in evidence.symptoms]
    subject = evidence.subject
    if subject is not None:
        facts.append(f"the object is {subject.label}{_born(subject.birth)}")
    facts.append(_loop_fact("it belongs to", evidence.owner))
    facts.append(_loop_fact("it was used on", evidence.current))
    if evidence.engine is not None and len(evidence.engine.loops) > 1:
        owners = ", ".join(map(str, evidence.engine.loops))
        facts.append(f"connections of its engine belong to the loops {owners}")
    if evidence.other is not None:
        facts.append(
            f"{evidence.other.task} was {evidence.other.state} in {evidence.other.function}()"
        )
    if evidence.first_failure is not None:
        facts.append(f"it had failed before, with {evidence.first_failure.code}")
    return tuple(facts)


def _born(birth: Birth | None) -> str:
    if birth is None:
        return ""
    if not birth.recorded:
        return ", opened before loopsentry was installed"
    here = "" if birth.pid == os.getpid() else f" in process {birth.pid}"
    return f", opened at {birth.place.short}{here}" if birth.place else here


def _loop_fact(words: str, loop: LoopInfo | None) -> str:
    if loop is None:
        return f"{words} no recorded loop"
    starter = f"started by {loop.started_by.short}" if loop.started_by else "starter not recorded"
    return f"{words} loop {loop.id} ({loop.runner or loop.kind}, {starter}), {loop.state}"


def choose_fixes(evidence: Evidence, cause: str, remedies: Sequence[Remedy]) -> tuple[Fix, ...]:
    """The cures for a cause, those first that fit the context."""
    contexts = evidence.contexts or ("unknown",)
    conditions = evidence.conditions
    told = (*(f"{cause}.{name}" for name in sorted(conditions)), cause, *sorted(conditions))
    kind = evidence.subject.kind if evidence.subject else None

    def fits(remedy: Remedy) -> bool:
        return (
            cause in remedy.cures
            and remedy.id not in evidence.followed
            and conditions.issuperset(remedy.needs)
            and conditions.isdisjoint(remedy.unless)
            and (not remedy.only_in or any(context in remedy.only_in for context in contexts))
            and (not remedy.objects or kind is None or kind in remedy.objects)
        )

    def order(remedy: Remedy) -> tuple[bool, int]:
        met = {evidence.operation, *conditions}
        first = contexts[0] in remedy.first_in or not met.isdisjoint(remedy.first_for)
        return not first, remedy.rank

    names = _names(evidence)
    return tuple(
        Fix(
            id=remedy.id,
            title=remedy.say("title", told),
            snippet=Template(remedy.say("snippet", told)).safe_substitute(names),
            reason=remedy.say("reason", told),
        )
        for remedy in sorted(filter(fits, remedies), key=order)[:FIXES_OFFERED]
    )


def _is_elsewhere(other: Operation, used: Place | None) -> bool:
    """Whether the other operation is in another function of the reader's."""
    if used is None:
        return True
    same_line = (other.file, other.line) == (used.file, used.line)
    return not same_line and other.place.call != used.call


def _names(evidence: Evidence) -> dict[str, str]:
    """The reader's own names, where they are known."""
    engine = evidence.engine.variable if evidence.engine else None
    sessions = evidence.engine.sessions if evidence.engine else None
    subject, used, other = evidence.subject, evidence.used_at, evidence.other
    birth = subject.birth if subject else None
    function = used.call if used else "the function"
    kind = subject.label if subject and subject.primitive else "asyncio.Lock"
    client = subject is not None and not subject.primitive
    block = "pool.acquire()" if evidence.current is not None else "make_client()"
    bind = engine or "engine"
    maker = f"{sessions} = async_sessionmaker" if sessions else "AsyncSession"
    return {
        "engine": bind,
        "sessions": f"{sessions}()" if sessions else f"AsyncSession({bind})",
        "keeping": f"{maker}({bind}, expire_on_commit=False)",
        "opener": birth.place.call if birth and birth.place else "the coroutine that opens them",
        "lock": (subject and subject.variable) or "lock",
        "made": (subject and subject.made) or ("make_client()" if client else f"{kind}()"),
        "block": (subject and subject.block) or block,
        "function": function,
        "other": other.place.call if other and _is_elsewhere(other, used) else "the other task",
        **(evidence.face.names if evidence.face is not None else {}),
    }
