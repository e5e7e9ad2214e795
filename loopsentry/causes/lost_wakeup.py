"""event loop sleeps although what it waits for is done

A future was completed, an event set or a lock released by a thread that is not the loop's own.
What waits for it was put into the loop's queue, but nobody woke the loop: it sleeps on until a
timer, a socket or a signal happens to wake it, or for ever. With asyncio's debug mode the thread
that does it gets an error instead.

Call from other threads only what is made for that: `loop.call_soon_threadsafe(future.set_result,
value)`, or `asyncio.run_coroutine_threadsafe(coroutine, loop)`.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS601"
CAUSE = "lost-wakeup"


def match(evidence: Evidence) -> Verdict | None:
    """Match what was seen of a loop that stands still."""
    return evidence.judge_hang(CAUSE, "completed by another thread, which did not wake the loop")
