"""no connection of the pool came free in time: all of them are out

Whoever asks a pool for a connection waits when all are out, and gives up when its time is up. That
needs no second event loop: sessions or connections that are never closed keep theirs for good, a
task that holds one and asks for a second waits for itself when all do so, and long work between
two statements keeps a connection that it does not use.

Open each session or connection in `async with`, as short as its work; never ask for a second one
while holding the first. Only if all of them are at work is the pool too small.
"""

from __future__ import annotations

from loopsentry.model import Certainty, Evidence, Verdict

CODE = "LS604"
CAUSE = "pool-exhausted"


def match(evidence: Evidence) -> Verdict | None:
    """Match a pool that had nothing to give; proven where who has its connections is known."""
    hangs = evidence.hang is not None and evidence.hang.kind == CAUSE
    if not evidence.has("exhausted") and not hangs:
        return None
    idle = [each for each in evidence.holders if each.task is None and each.searched]
    count = len(evidence.holders)
    out = f"{count} connections are out" if count > 1 else "1 connection is out" if count else ""
    kept = f"; no task at work has {len(idle)} of them in hand" if idle else ""
    return Verdict(
        certainty=_certainty(evidence),
        explains=frozenset({"exhausted"}),
        one_loop=True,
        data="not-sent",
        notes=(f"{out}{kept}" if out else "who has its connections is not recorded",),
    )


def _certainty(evidence: Evidence) -> Certainty:
    if evidence.hang is not None:
        return evidence.hang.certainty
    return "proven" if evidence.holders and evidence.subject is not None else "likely"
