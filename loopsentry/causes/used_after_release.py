"""session or connection used after it was given back

This is not a loop mismatch. The connection or session was used after the scope that owned it had
returned it: the `async with` block was over, the request was answered, the pool had taken it back,
or the program had closed the connection or the whole pool.
Helpers that return a connection out of their own `async with`, and background tasks that keep the
session of their request, do this.

Keep the work inside the scope, or open another session where the work is done.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS204"
CAUSE = "used-after-release"


def match(evidence: Evidence) -> Verdict | None:
    """Match a driver's or a library's own word that the object had been returned."""
    closed_here = evidence.has("disconnected")
    said = evidence.closed_by_program if closed_here else evidence.has("released", "ended")
    if evidence.has("ended") and evidence.met:
        return None  # at work for another task, which SQLAlchemy takes for closed
    if not said or evidence.forked or evidence.closed_at_work:
        return None
    if evidence.has("foreign-loop", "loop-closed", "busy"):
        return None
    one_loop = evidence.same_loop is not False
    kind = evidence.subject.kind if evidence.subject else "connection"
    closed = closed_here or kind == "pool"
    where = f"closed at {evidence.closed_at.short}; " if evidence.closed_at else ""
    known = evidence.subject is not None and evidence.closing != "read"
    headline = f"{kind} used after the program had closed it" if closed else ""
    return Verdict(
        certainty="proven" if known else "likely",
        explains=frozenset({"released", "ended", *(("disconnected",) if closed_here else ())}),
        headline=evidence.face.headline if evidence.face is not None else headline,
        one_loop=one_loop,
        data="not-sent",
        notes=(f"{where}nothing was sent", *(("not a loop mismatch",) if one_loop else ())),
    )
