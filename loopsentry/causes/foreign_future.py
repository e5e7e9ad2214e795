"""future or task of another event loop awaited

A future or a task belongs to the event loop it was made on: only that loop wakes whoever waits
for it. Here it was awaited on another loop, often because it was kept in a cache, a global or an
object that outlives one `asyncio.run`, or because a library made it on a loop of its own thread.

Hand the work to the loop that owns the task with `asyncio.run_coroutine_threadsafe` and wrap the
answer, or make the task on the loop that awaits it.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS105"
CAUSE = "foreign-future"


def match(evidence: Evidence) -> Verdict | None:
    """Match a future of another loop, found and inspected, that no database object explains."""
    subject = evidence.subject
    if subject is None:
        return _by_text_alone(evidence)
    if subject.kind != "future" or not evidence.has("foreign-loop"):
        return None
    if evidence.same_loop is not False or evidence.forked:
        return None
    return Verdict(
        certainty="proven",
        explains=frozenset({"other-loop", "future", *(s.kind for s in evidence.symptoms)}),
        headline=f"{subject.label} of another event loop awaited",
        data="unknown",
    )


def _by_text_alone(evidence: Evidence) -> Verdict | None:
    """The check that refused is made for futures only; which one it was is not known."""
    if evidence.current is None or not any(s.about == "future" for s in evidence.symptoms):
        return None
    return Verdict(
        certainty="likely",
        explains=frozenset({"foreign-loop"}),
        data="unknown",
        notes=("probably: the refusal is that of a future, which was not found",),
    )
