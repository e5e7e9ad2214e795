"""connection opened before a fork used in the child process

A process was forked after a connection had been opened, and the child used the inherited
connection. Both processes now write to one socket and read each other's answers; the event loop
that owned the connection does not run in the child at all. Depending on luck the texts speak of
another loop, of another operation in progress, or of a broken protocol; the parent's connection
may be damaged too.

In the child, give up the inherited connections without closing them, before the first use:
`engine.dispose(close=False)`; or open none before the fork.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS301"
CAUSE = "forked-connection"


def match(evidence: Evidence) -> Verdict | None:
    """Match an object whose recorded process is not this one."""
    if not evidence.forked or evidence.subject is None or evidence.subject.birth is None:
        return None
    if evidence.subject.tolerant and not evidence.symptoms:
        return None
    return Verdict(
        certainty="proven",
        explains=frozenset({"other-process", "other-loop", *(s.kind for s in evidence.symptoms)}),
        data=evidence.sent[0],
        notes=(
            f"opened in process {evidence.subject.birth.pid}, used in process {evidence.pid}",
            "both write to one socket: the parent's connection may be damaged",
        ),
    )
