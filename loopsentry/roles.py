"""Which loop played which part in a failure, and in what state it was then."""

from __future__ import annotations

import threading
from dataclasses import replace

from . import _frames
from ._frames import Site
from .model import LoopInfo, Recognition
from .registry import LoopRecord, state_of


def contexts_of(
    recognised: list[Recognition],
    current: LoopRecord | None,
    owner: LoopRecord | None,
    *,
    forked: bool,
    nested: bool = False,
) -> tuple[str, ...]:
    """The contexts of the loop that uses, of the stack and of the loop that owns.

    Where a loop is refused its start, what asks for it comes first, not the one that runs.
    """
    known = ["fork"] if forked else []
    around = current.info.contexts if current else ()
    here = [recognition.context for recognition in recognised]
    known += (*here, *around) if nested else (*around, *here)
    known += owner.info.contexts if owner else ()
    return tuple(dict.fromkeys(known))


def followed_by(recognised: list[Recognition], current: LoopRecord | None) -> tuple[str, ...]:
    """The fixes that the program follows already; of no use are those it follows elsewhere."""
    live = (fix for recognition in recognised for fix in recognition.followed)
    return (*(current.info.followed if current else ()), *live)


def role_a(owner: LoopRecord | None, alive: bool | None) -> LoopInfo | None:
    """The owner as it was then: one that was open and has been closed since was running."""
    if owner is None:
        return None
    info = owner.snapshot("A")
    return replace(info, state="running") if alive and info.state == "closed" else info


def role_b(current: LoopRecord | None, owner: LoopRecord | None) -> LoopInfo | None:
    """The loop it happened on; it was running then, whatever has become of it."""
    if current is None:
        return None
    info = current.snapshot("A" if current is owner or owner is None else "B")
    return replace(info, state="running")


def alive_then(
    owner: LoopRecord | None,
    current: LoopRecord | None,
    sites: list[Site],
    index: int | None,
    *,
    live: bool,
) -> bool | None:
    """Whether the owner was open when it happened; None where that cannot be told any more.

    Args:
        owner: the loop that owns the object.
        current: the loop it happened on.
        sites: the stack.
        index: where on it the loop's own frame is, if it is there.
        live: whether it happens right now, on this very stack.
    """
    if owner is None:
        return None
    loop = owner.reference()
    if state_of(loop, owner.info.pid) != "closed":
        return True
    if owner is current:
        return False
    if index is None:  # of the loop it happened on nothing is left in the traceback
        here, outer = threading.current_thread().name, []
    else:
        here = current.info.thread if current else ""
        # The exception came out of one loop into the other, so that one was still running.
        outer = sites[index + 1 :]
    if loop is not None and any(_frames.loop_run_by(site) is loop for site in outer):
        return True
    if live or len({owner.info.thread, here} - {""}) <= 1:
        return False
    return True if index is None and _is_inside_block_of(owner, sites) else None


def is_same(
    owner: LoopRecord | None, current: LoopRecord | None, *, known: bool, refused: bool
) -> bool | None:
    """Whether the owner is the loop it happened on; None where either is not known.

    Args:
        owner: the loop that owns the object.
        current: the loop it happened on.
        known: whether that is certain; if it is, and there is none, none was running.
        refused: whether asyncio itself refused because the two differ.
    """
    if owner is None:
        return None
    if not known:
        return False if refused else None
    return owner is current


def _is_inside_block_of(owner: LoopRecord, sites: list[Site]) -> bool:
    """Whether a frame stands inside the `with` block that started a loop, as TestClient's does."""
    starter = owner.info.started_by
    if starter is None:
        return False
    own = (site for site in sites if _frames.is_user(site.frame))
    inside = (site for site in own if _frames.place_of_code(site.code).file == starter.file)
    blocks = (block for site in inside for block in _frames.blocks_around(site))
    return any(block.line == starter.line for block in blocks)
