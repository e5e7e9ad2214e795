"""A notebook or IPython, whose loop runs between the cells."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "notebook"
RANK = 55
PACKAGES = ("IPython", "ipykernel", "jupyter_client", "tornado", "nest_asyncio", "traitlets")
#: They start the loop themselves, before any cell.
_OWN = {"IPython": "IPython's own", "ipykernel": "the notebook's own"}
_MODULES = frozenset({"ipykernel", "IPython", "nest_asyncio"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise IPython's frames, or a loop patched for nesting."""
    for frame in stack:
        package = frame.module.partition(".")[0]
        if package in _MODULES:
            return Recognition(context=NAME, runner=_OWN.get(package))
    return None
