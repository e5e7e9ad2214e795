"""one session or connection used by two tasks of one event loop

This is not a loop mismatch: one event loop only. A session or a connection can do one thing at a
time, and two tasks use it at once, often through `asyncio.gather`, a task group, a context
variable that child tasks inherit, or a dependency that hands the same session to several
resolvers.

Depending on the moment the second task is told *another operation is in progress*, *this session
is provisioning a new connection*, *method is already in progress* or, in the block of a
transaction, *can't operate on closed transaction*. Often the first refusal is lost, and the last
word has the clean-up, which is refused too while the other task is at work. A larger pool or
`NullPool` does not help: the tasks hold the same session.

Give each task a session of its own, opened inside the task, or do one thing after the other.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS201"
CAUSE = "concurrent-use"


def match(evidence: Evidence) -> Verdict | None:
    """Match an object that another task of the same loop was using at that moment."""
    if evidence.same_loop is False or evidence.forked or evidence.subject is None:
        return None
    if evidence.outrun:
        return None
    racing = evidence.has("illegal-state") and evidence.phase != "cleanup"
    racing = racing or (evidence.has("provisioning") and not evidence.undone)
    after = evidence.shared and (evidence.undone or evidence.phase == "cleanup")
    meeting = evidence.has("ended", "taken") and evidence.met
    if not racing and not after and not meeting and not evidence.has("busy", "stale-transaction"):
        return None
    under_way = any(symptom.under_way for symptom in evidence.symptoms)
    found = evidence.other is not None and not evidence.other.probable
    known = not after and (found or (under_way and evidence.same_loop))
    told = under_way or racing or after or meeting or evidence.other is not None
    if not known and not told:
        return None
    kind = evidence.subject.kind
    return Verdict(
        certainty="proven" if known else "likely",
        explains=frozenset({"other-task", *(s.kind for s in evidence.symptoms)}),
        one_loop=True,
        headline=f"one {kind} used by two tasks of one event loop",
        data="not-sent",
        notes=(
            "the second statement was not sent",
            f"not a loop mismatch: both on {_loop(evidence)}",
        ),
    )


def _loop(evidence: Evidence) -> str:
    loop = evidence.current
    if loop is None:
        return "one loop"
    place = loop.started_by
    where = f", {place.path}:{place.line}" if place else ""
    return f"{loop.name}, {loop.runner or 'not recorded'}{where}"
