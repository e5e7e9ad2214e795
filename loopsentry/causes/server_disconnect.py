"""connection closed by the server, the network or a pooler

This is not a loop mismatch. The connection was closed from the other side: the server restarted,
an administrator or a time-out ended the session, a pooler or a firewall dropped an idle
connection. The pool did not know and handed it out.

Run the unit of work again on a new connection. `pool_pre_ping=True` or `pool_recycle` let the pool
notice idle connections that have gone; they do not help a transaction that is under way.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS501"
CAUSE = "server-disconnect"


def match(evidence: Evidence) -> Verdict | None:
    """Match a closed connection that no loop, no other task and no cancellation explains."""
    if not evidence.has("disconnected") or evidence.same_loop is False or evidence.forked:
        return None
    if evidence.cancelled or evidence.has("foreign-loop", "loop-closed"):
        return None
    if not evidence.handled:
        return None  # the pool noticed and replaced it
    first = evidence.first_failure
    if evidence.closed_by_program or (first is not None and first.code != CODE):
        return None
    birth = evidence.subject.birth if evidence.subject else None
    by_server = any(symptom.by_server for symptom in evidence.symptoms)
    known = by_server or (birth is not None and birth.recorded)
    if not known and evidence.closing != "none":
        return None  # outside a pool the program may have closed it itself
    proven = (
        known and evidence.same_loop is True and evidence.closed and evidence.subject is not None
    )
    return Verdict(
        certainty="proven" if proven else "likely",
        explains=frozenset({"disconnected"}),
        data="unknown",
        notes=("not a loop mismatch: the connection was closed from the other side",),
    )
