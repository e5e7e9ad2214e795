"""A notebook or IPython, whose loop runs between the cells."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "notebook"
RANK = 55
PACKAGES = ("IPython", "ipykernel", "jupyter_client", "tornado", "nest_asyncio", "traitlets")
_MODULES = frozenset({"ipykernel", "IPython", "nest_asyncio"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise IPython's frames, or a loop patched for nesting."""
    if any(frame.module.partition(".")[0] in _MODULES for frame in stack):
        return Recognition(context=NAME)
    return None
