"""event loop started inside a running event loop

`asyncio.run`, `Runner.run` or `run_until_complete` was called by code that already runs on an
event loop: an asynchronous function called an ordinary one, which started a loop of its own. One
thread can run one loop at a time.

Await the coroutine instead; where the code between is not asynchronous, run it in a thread with
`asyncio.to_thread`.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS402"
CAUSE = "nested-run"


def match(evidence: Evidence) -> Verdict | None:
    """Match a refused start of a loop."""
    if not evidence.has("nested-run"):
        return None
    return Verdict(
        certainty="proven" if evidence.loop_traced else "likely",
        explains=frozenset({"nested-run"}),
        headline=evidence.face.headline if evidence.face is not None else None,
        data="not-sent",
        notes=("nothing was sent",),
    )
