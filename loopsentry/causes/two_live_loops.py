"""connection of one event loop used on another, both alive

A connection belongs to the event loop that opened it. That loop is not closed: it runs in another
thread, or it is stopped for now, as a session-scoped test loop is while a test runs on its own.
Meanwhile code on a second loop used the connection, the session that holds it, or a pool of such
connections.

The use fails with *attached to a different loop*, and the owner may then find its connection busy
for ever: *another operation is in progress*. Two loops that run at the same time in two threads
may even crash the interpreter when they meet inside the driver, without any exception.

Send the work to the loop that owns the connection, or give each loop its own engine or pool.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS102"
CAUSE = "two-live-loops"


def match(evidence: Evidence) -> Verdict | None:
    """Match a bound object whose owner was still open when another loop used it."""
    if not evidence.crossing_failed or not evidence.owner_alive or evidence.subject is None:
        return None
    data, note = evidence.sent
    return Verdict(
        certainty="proven",
        explains=frozenset({"other-loop", "owner-alive", *(s.kind for s in evidence.symptoms)}),
        headline=f"{evidence.subject.name} of one event loop used on another, {_state(evidence)}",
        severity=evidence.severity,
        data=data,
        notes=(note, *_threads(evidence)),
    )


def _state(evidence: Evidence) -> str:
    stopped = evidence.owner is not None and evidence.owner.state == "stopped"
    return "its own is stopped" if stopped else "both alive"


def _threads(evidence: Evidence) -> tuple[str, ...]:
    owner, current = evidence.owner, evidence.current
    if evidence.has("refused", "replaced"):
        return ()
    if owner is None or current is None or owner.thread == current.thread or not owner.thread:
        return ()
    return ("two running loops on one connection can also crash the interpreter",)
