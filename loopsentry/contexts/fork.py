"""A child process that was forked off."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "fork"
RANK = 30
PACKAGES = ("multiprocessing",)
_MODULES = frozenset({"multiprocessing"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise multiprocessing's frames; a plain os.fork is told by the process ids."""
    if any(frame.module.partition(".")[0] in _MODULES for frame in stack):
        return Recognition(context=NAME)
    return None
