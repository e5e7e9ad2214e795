"""A loop in a thread of its own."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "thread"
RANK = 15


def recognise(stack: Stack) -> Recognition | None:
    """Recognise a stack that begins in a thread's bootstrap."""
    if stack and stack[-1].module == "threading" and stack[-1].function.startswith("_bootstrap"):
        return Recognition(context=NAME)
    return None
