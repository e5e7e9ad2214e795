"""event loop sleeps although what it waits for is done

A future was completed, an event set, a lock released, a task made or the loop told to stop by a
thread that is not the loop's own, or by a handler of `signal.signal`. What waits for it was put
into the loop's queue, but nobody woke the loop: it sleeps on until a timer, a socket or a signal
happens to wake it, or for ever. With asyncio's debug mode the thread that does it gets an error
instead.

Call from other threads only what is made for that: `loop.call_soon_threadsafe(future.set_result,
value)`, or `asyncio.run_coroutine_threadsafe(coroutine, loop)`.
"""

from __future__ import annotations

from loopsentry.model import Evidence, Verdict

CODE = "LS601"
CAUSE = "lost-wakeup"


def match(evidence: Evidence) -> Verdict | None:
    """Match what was seen of a loop that stands still."""
    unseen = evidence.hang.unseen if evidence.hang is not None else None
    headline, done = _UNSEEN[unseen]
    note = f"{done} by a thread or signal handler that did not wake it"
    return evidence.judge_hang(CAUSE, note, headline)


#: What the loop was not woken for: the headline, and what was done.
_UNSEEN = {
    None: ("", "completed"),
    "not-started": ("event loop sleeps although a task of it is to start", "made"),
    "stopping": ("event loop sleeps although it was told to stop", "told"),
}
