"""event loop cannot end: a cancelled task goes on waiting

At its end `asyncio.run` cancels the tasks that are left and waits for them. One of them caught its
`CancelledError` and went on, so that it is waited for until it ends by itself, which may be never:
the worker of a pool that was never closed, a loop around `except BaseException`, `suppress`.

Close what has workers before its loop ends, with `async with` or `finally`; in code of your own let
`CancelledError` pass.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS603"
CAUSE = "unfinished-cancellation"


def match(evidence: Evidence) -> Verdict | None:
    """Match what was seen of a loop that stands still."""
    return evidence.judge_hang(
        CAUSE, "asyncio.run cancels what is left at its end, and waits for it"
    )
