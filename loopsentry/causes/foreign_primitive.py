"""lock, queue or event bound to another event loop

An `asyncio` lock, queue, event, condition or semaphore belongs to the first event loop in which
somebody had to wait on it, and stays bound to it for good. Nobody notices while nobody waits; the
first wait on another loop fails with *is bound to a different event loop*.

An engine's pool has such a queue too: once two tasks have waited for a connection on one loop,
nobody can wait for one on another, whichever driver is used.

Make the primitive inside the running loop that uses it; for a pool, keep one engine or one pool
per loop.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS104"
CAUSE = "foreign-primitive"


def match(evidence: Evidence) -> Verdict | None:
    """Match a synchronisation primitive whose own loop is another than the one that waits."""
    subject = evidence.subject
    if subject is None or evidence.same_loop is not False or not evidence.has("foreign-loop"):
        return None
    if not subject.primitive or evidence.forked:
        return None
    return Verdict(
        certainty="proven",
        explains=frozenset({"other-loop", "primitive", *(s.kind for s in evidence.symptoms)}),
        headline=f"{subject.label} is bound to another event loop",
        data="not-sent",
        notes=("nothing was sent to the server",) if subject.kind == "pool" else (),
    )
