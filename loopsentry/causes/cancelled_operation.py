"""operation cancelled or timed out, and what it left behind was used

This is not a loop mismatch. An operation on a connection was cancelled, by a time-out, by a
client that went away or by a task group, while the server was still at work. The connection was
then given up in the middle of its protocol, or the transaction it belonged to was invalidated;
what came next found *another operation is in progress*, *Can't reconnect until invalid
transaction is rolled back*, or a connection that waits for an answer nobody reads any more.

After a time-out leave the `async with` block of the session and begin a new one, or roll back
explicitly; wait for a cancelled task before its connection is used again.
"""

from __future__ import annotations

from loopsentry.model import REFUSALS, Evidence, SymptomKind, Verdict

CODE = "LS203"
CAUSE = "cancelled-operation"

_LEFT_BEHIND: tuple[SymptomKind, ...] = (
    "busy",
    "stale-transaction",
    "invalid-transaction",
    "disconnected",
)
_AT_WORK: tuple[SymptomKind, ...] = ("busy", *REFUSALS)


def match(evidence: Evidence) -> Verdict | None:
    """Match what a recorded cancellation, or one in the chain, left behind."""
    if evidence.same_loop is False or evidence.forked:
        return None
    left = evidence.cancelled and evidence.has(*_LEFT_BEHIND)
    if not left and not (evidence.outrun and evidence.has(*_AT_WORK)):
        return None
    certain = evidence.cancellation is not None or evidence.outrun
    where = evidence.cancellation
    notes = ["the cancelled statement may have been executed by the server"]
    if evidence.outrun and evidence.other is not None:
        notes.insert(0, f"{evidence.other.task or 'its task'} was cancelled, and was not over yet")
    elif where is not None:
        notes.insert(0, f"cancelled before in {where.call}, {where.path}:{where.line}")
    return Verdict(
        certainty="proven" if certain else "likely",
        explains=frozenset({"cancelled", "other-task", *(s.kind for s in evidence.symptoms)}),
        one_loop=True,
        data="maybe-executed",
        notes=(*notes, "not a loop mismatch: one event loop only"),
    )
