"""clean-up after the owning event loop ended, or on another one

The work itself was done. What failed is tidying up: a session was closed, a transaction rolled
back, an engine disposed or a forgotten connection collected when the event loop that owns the
connection had already ended, or from another loop. Closing a connection means waiting on its own
loop, so it can only be done there.

The server notices in the end, when the socket is closed; until then the connection counts against
its limit.

Close what you open on the loop it was opened on: sessions in an `async with` block, the engine
with `await engine.dispose()` in a `finally` before the loop ends.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS103"
CAUSE = "late-cleanup"

_HEADLINES = {
    "dispose": "connections disposed after their event loop ended",
    "close": "closed on another event loop than its own",
    "rollback": "rolled back on another event loop than its own",
}


def match(evidence: Evidence) -> Verdict | None:
    """Match a failed clean-up of an object that nothing had damaged before."""
    if evidence.subject is None and evidence.owner is not None and evidence.current is None:
        return _called_back(evidence)
    if evidence.phase != "cleanup" or evidence.first_failure is not None or evidence.forked:
        return None
    if evidence.same_loop is not False or not evidence.has("foreign-loop", "loop-closed", "busy"):
        return None
    subject = evidence.subject
    if subject is not None and (subject.primitive or subject.kind == "future"):
        return None  # waited for, not cleaned up
    severe = evidence.handled and not evidence.collected
    return Verdict(
        certainty="proven" if evidence.subject is not None else "likely",
        explains=frozenset({"other-loop", "cleanup", *(s.kind for s in evidence.symptoms)}),
        severity="error" if severe else "warning",
        headline=_headline(evidence),
        data="not-sent",
        notes=("the work itself was done; only the clean-up failed",),
    )


def _called_back(evidence: Evidence) -> Verdict | None:
    """No loop runs, and a loop that is closed was asked to go on: only late callers are left."""
    if not evidence.has("loop-closed") or evidence.owner_alive:
        return None
    return Verdict(
        certainty="likely",
        explains=frozenset({"owner-closed", "loop-closed"}),
        severity="warning",
        headline="an event loop was called back after it had ended",
        notes=("probably: no loop is running here, and the one called is closed",),
    )


def _headline(evidence: Evidence) -> str | None:
    if evidence.collected:
        when = "on another event loop" if evidence.owner_alive else "after its event loop ended"
        return f"connection never closed, collected {when}"
    subject = evidence.subject.kind if evidence.subject else "connection"
    headline = _HEADLINES.get(evidence.operation or "")
    if evidence.operation == "dispose" and evidence.owner_alive:
        return "connections disposed on another event loop than their own"
    if headline is None or evidence.operation == "dispose":
        return headline
    return f"{subject} {headline}"
