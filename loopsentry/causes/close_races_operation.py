"""session or connection closed while its operation still runs

This is not a loop mismatch: one event loop only. Somebody closed a session or a connection, or
ended its transaction, while another task was still in the middle of an operation on it. It
happens when `asyncio.gather` leaves at the first error and the `async with` block around it ends
while the siblings go on, when an asynchronous generator is finalised in another task, and when a
request ends before the work it started.

The sessions need not be shared for this: one task with its own session is enough, if the block
that closes the session does not wait for the task.

Wait for every sibling before the block ends: `asyncio.TaskGroup`, `gather(...,
return_exceptions=True)`, or sessions opened inside the tasks.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS202"
CAUSE = "close-races-operation"


def match(evidence: Evidence) -> Verdict | None:
    """Match a close that met a running operation of the same object on the same loop."""
    subject = evidence.subject
    if subject is None or evidence.same_loop is False or evidence.forked:
        return None
    if evidence.has("provisioning", "ended", "taken") and not evidence.undone:
        return None
    if evidence.shared and evidence.phase == "cleanup":
        return None  # the close was refused only because two tasks had met before
    if evidence.has("cut-off") and evidence.first_failure is not None:
        return None  # the statement that was cut off, after the close itself was told of
    cut = evidence.closed_at_work
    ending = evidence.phase == "cleanup" or evidence.leaving
    refused = evidence.has("illegal-state", "provisioning")
    if not cut and not (ending and (refused or _busy(evidence))):
        return None
    under_way = evidence.same_loop is True and any(each.under_way for each in evidence.symptoms)
    known = under_way or evidence.other is not None or refused
    known = evidence.closing == "recorded" if cut else known
    where = (f"closed at {evidence.closed_at.short}",) if cut and evidence.closed_at else ()
    explained = {"closing", "other-task", *(s.kind for s in evidence.symptoms)}
    if evidence.cancelled and evidence.other is not None:
        explained.add("at-work")  # which a cancellation before it does not explain
    return Verdict(
        certainty="proven" if known else "likely",
        explains=frozenset(explained),
        one_loop=True,
        headline=f"{subject.kind} closed while its operation still runs",
        data="unknown",
        notes=(
            *where,
            "the operation that was running is undone with its transaction",
            "not a loop mismatch: one event loop only",
        ),
    )


def _busy(evidence: Evidence) -> bool:
    if evidence.apart:
        return False  # what is at work is another session's: the connection is shared
    left_behind = evidence.cancelled or evidence.first_failure is not None
    beside = evidence.other is not None or (evidence.same_loop is True and not left_behind)
    return evidence.has("busy") and beside
