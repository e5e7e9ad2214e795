"""session or connection used after it was given back

This is not a loop mismatch. The connection or session was used after the scope that owned it had
returned it: the `async with` block was over, the request was answered, the pool had taken it back.
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
    if not evidence.has("released") or evidence.same_loop is False or evidence.forked:
        return None
    if evidence.has("foreign-loop", "loop-closed", "busy", "disconnected"):
        return None
    return Verdict(
        certainty="proven" if evidence.subject is not None else "likely",
        explains=frozenset({"released"}),
        one_loop=True,
        data="not-sent",
        notes=("nothing was sent", "not a loop mismatch"),
    )
