"""Which lock of `threading` a frame waits for, and in which frames that lock is held.

A lock is written in C: nothing of it stands in a stack. But the instruction at which a frame stands
tells whether it enters a `with` block or calls `acquire`, and its expression names the lock.
"""

from __future__ import annotations

import dis
import threading
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

from . import _frames
from ._frames import Names, Site
from .exceptions import is_a, variables_of

#: The type of `threading.Lock()`. A re-entrant lock does not stop the thread that holds it.
LOCK = type(threading.Lock())
#: Enter a block: the first until 3.13, the second, a plain call, since 3.14.
_ENTERS = ("BEFORE_WITH", "CALL")
#: How deep a lock may lie in attributes of attributes, as `self.store.lock`.
DEPTH = 3


def lock_wanted(site: Site) -> Any:
    """The one locked lock that the frame is about to take; None if it does something else."""
    step = next((each for each in dis.get_instructions(site.code) if each.offset == site.at), None)
    if step is None or not step.opname.startswith(_ENTERS):
        return None
    names = _frames.names_within(site.code, _frames.span_of(step))
    calls = {"acquire"} & names.attributes
    entered = step.opname != "CALL" or _follows_special(site)
    found = {id(each): each for each in _locks_named(site.frame, names)} if calls or entered else {}
    locked = [each for each in found.values() if each.locked()]
    return locked[0] if len(locked) == 1 else None


def is_held_in(site: Site, lock: Any) -> bool:
    """Whether a frame stands inside a `with` block that took a lock."""
    spans = (block.span for block in _frames.blocks_around(site))
    named = (_frames.names_within(site.code, span) for span in spans)
    return any(each is lock for names in named for each in _locks_named(site.frame, names))


def _follows_special(site: Site) -> bool:
    """Whether the call is that of `__enter__` (CPython 3.14: LOAD_SPECIAL)."""
    before = [each for each in dis.get_instructions(site.code) if each.offset < site.at]
    return any(each.opname == "LOAD_SPECIAL" for each in before[-2:])


def _locks_named(frame: FrameType, names: Names) -> Iterator[Any]:
    variables = _frames.variables_in(frame)
    values = [variables.get(name, frame.f_globals.get(name)) for name in names.variables]
    for _ in range(DEPTH):
        yield from (each for each in values if is_a(each, LOCK))
        values = [
            inner for each in values for name in names.attributes for inner in _kept(each, name)
        ]


def _kept(target: Any, name: str) -> Iterator[Any]:
    """What an object, or its class, keeps under a name; nothing of the program is run for it."""
    if is_a(target, ModuleType) or name in variables_of(target):
        yield variables_of(target).get(name)
    for kind in target.__mro__ if is_a(target, type) else type(target).__mro__:
        if name in vars(kind):
            yield vars(kind)[name]
