"""connection of a closed event loop used on another loop

A connection belongs to the event loop that opened it: its socket is watched by that loop, and the
driver waits for answers with that loop's futures. The loop has ended, as every `asyncio.run` ends
its loop, but the engine's pool kept the connection. Code on a later loop took it out of the pool
and used it.

The first use fails with *attached to a different loop* or *Event loop is closed*. It leaves the
connection in the middle of its protocol, so each later use fails with *another operation is in
progress*, a text that names no loop and that also means something else. `pool_pre_ping` does not
help: the ping fails in the same way.

Give the code that runs on another loop an engine of its own, run everything on one loop, dispose
the engine before its loop ends, or keep one pool per loop.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS101"
CAUSE = "closed-loop"


def match(evidence: Evidence) -> Verdict | None:
    """Match a bound object whose owner was closed when another loop used it."""
    if not evidence.crossing_failed or evidence.owner_alive or evidence.subject is None:
        return None
    data, note = evidence.sent
    return Verdict(
        certainty="proven" if evidence.owner_alive is False else "likely",
        explains=frozenset({"other-loop", "owner-closed", *(s.kind for s in evidence.symptoms)}),
        headline=f"{evidence.subject.name} of a closed event loop used on another loop",
        severity=evidence.severity,
        data=data,
        notes=(note,)
        if evidence.owner_alive is False
        else (note, "the owner is closed now; it may have been open in its thread then"),
    )
