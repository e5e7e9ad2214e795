"""Clients of other libraries that keep their loop in an attribute, and are made by the program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from loopsentry._frames import first_argument, running_loop, walk_live
from loopsentry._monitoring import on_return
from loopsentry.model import Sighting
from loopsentry.registry import Registry, Undo

from ._births import birth_here, when_there


def sighter(module: str, *names: str) -> Callable[[Any], Sighting | None]:
    """A probe's `sight` for classes whose instances keep their loop in `_loop`.

    Args:
        module: the module that has the classes; while it is not imported nothing is recognised.
        names: of the classes in it.
    """
    library = module.partition(".")[0]

    def sight(target: Any) -> Sighting | None:
        there = sys.modules.get(module)
        kinds = tuple(getattr(there, name) for name in names if hasattr(there, name))
        if not kinds or not issubclass(type(target), kinds):
            return None
        label = f"{library} client"
        loop = getattr(target, "_loop", None)
        return Sighting(kind="client", label=label, library=library, target=target, loop=loop)

    return sight


def hear_made(registry: Registry, module: str, name: str) -> Undo:
    """Record where instances of a class are made (Python 3.12), once its module is imported.

    When they are complete: one that is not yet may have no hash (pymongo).
    """

    def is_made(frame: FrameType) -> None:
        sites = list(walk_live(frame))
        birth = birth_here(registry, "client", running_loop(), sites)
        registry.bear(first_argument(frame), birth)

    def listen(there: ModuleType) -> Undo:
        return on_return(getattr(getattr(there, name, None), "__init__", None), is_made)

    return when_there(registry, module, listen)
