"""What several probes record of an object that comes into being on the present stack."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from loopsentry._frames import describe_all, task_name
from loopsentry._imports import is_imported
from loopsentry._safely import until_failure
from loopsentry.model import Birth, ObjectKind
from loopsentry.registry import Registry, Undo
from loopsentry.trails import Trail


def birth_here(
    registry: Registry, kind: ObjectKind, loop: Any, trail: Trail, family: Any = None
) -> Birth:
    """Make the birth of an object that the code on this stack makes right now.

    Args:
        registry: what is remembered.
        kind: what is born.
        loop: the loop that owns it, None if none does.
        trail: the present stack.
        family: the pool, engine or the like that it is born of.
    """
    known = registry.meet(loop, lambda: describe_all(trail.sites))
    return registry.new_birth(
        kind,
        known.info.id if known else None,
        place=trail.place,
        task=task_name(),
        thread=threading.current_thread().name,
        family=registry.family_of(family),
        stack=trail.stack,
    )


def when_there(registry: Registry, name: str, listen: Callable[[ModuleType], Undo]) -> Undo:
    """Listen to a library that the program may import later; it is never imported for this.

    Args:
        registry: tells when to look for the library: at each loop's start, and when asked to.
        name: of the module.
        listen: takes the module, and returns what ends the listening.

    Returns:
        What ends the listening, or the waiting for it.
    """
    attached = ExitStack()
    turns = itertools.count()  # whoever gets the first listens, of whatever threads look at once

    def begin() -> None:
        if is_imported(name) and next(turns) == 0:
            attached.callback(listen(sys.modules[name]))

    begin()
    attached.callback(registry.on_look(until_failure(begin)))
    return attached.close
