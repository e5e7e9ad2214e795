"""event loop is blocked until work is done that only it can do

The thread of an event loop waits, blocking, for the result of a coroutine that was given to this
very loop: `run_coroutine_threadsafe(...).result()`, or a `join()` of a thread that waits so. Or the
loop's tasks wait for its executor, all of whose threads wait for the loop. None of them can go on.

Await the coroutine instead of waiting for it with `.result()`; give blocking work that waits for
the loop an executor of its own.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS602"
CAUSE = "self-deadlock"


def match(evidence: Evidence) -> Verdict | None:
    """Match what was seen of a loop that stands still."""
    return evidence.judge_hang(
        CAUSE, "nothing but the end of the process, or a time-out, ends this"
    )
