"""the facts do not decide

A library complained in words that often, not always, mean event loops, and nothing was found that
settles it: no recorded connection, no object that names its loop, no other task at work. Nothing
is claimed. The facts that were found are listed.

Install loopsentry before the first connection is opened, best beside `create_async_engine`, so
that the next failure of this kind can be explained.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS000"
CAUSE = "undetermined"


def match(evidence: Evidence) -> Verdict | None:
    """Match whatever sounds like the others; any other verdict outweighs it."""
    if evidence.subject is not None and evidence.subject.tolerant:
        return None
    if not evidence.left_unusable:
        return None
    if evidence.subject is None and all(symptom.quoted for symptom in evidence.symptoms):
        return None  # words of the program's own, of which no library complained
    return Verdict(certainty="undetermined", explains=frozenset())
