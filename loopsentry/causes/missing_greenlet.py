"""database work where nothing awaits it

This is not a loop mismatch. SQLAlchemy's asyncio layer runs database work inside a greenlet, so
that ordinary code can wait for the driver. Here such work was started outside of it: a relation or
an expired attribute was read and had to be loaded, or an asynchronous engine was used as if it
were an ordinary one.

Load what is needed beforehand (`selectinload`, `refresh`), keep loaded values after a commit
(`expire_on_commit=False`), or run ordinary code with `await session.run_sync(function)`.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS401"
CAUSE = "missing-greenlet"


def match(evidence: Evidence) -> Verdict | None:
    """Match the library's own word; it is raised by the check for the greenlet itself."""
    if not evidence.has("missing-greenlet"):
        return None
    return Verdict(
        certainty="proven" if evidence.subject is not None else "likely",
        explains=frozenset({"missing-greenlet"}),
        headline=evidence.face.headline if evidence.face is not None else None,
        data="not-sent",
        notes=("nothing was sent; not a loop mismatch",),
    )
