"""Failures that are the same as one that was told: recognised before evidence is collected.

A pool that was left unusable fails in each request, and each time for the same reason. What decides
a diagnosis is compared: the lines at work, the complaint's words up to the first object in them,
where the connection was opened, both loops' starters and the owner's state, and what was recorded
of the connection. Where all of that is the same, so is the diagnosis.
"""

from __future__ import annotations

import os
import sys
from asyncio import _get_running_loop
from collections import OrderedDict
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from ._frames import live_frames
from .exceptions import arguments_of, field_of, traceback_of
from .model import Clue, Diagnosis, Evidence
from .registry import Registry, state_of

KEPT = 256
_CHAIN = 8
_HEAD = 80

#: What a complaint says of an object that was left behind unusable; others depend on more.
_LASTING = frozenset({"foreign-loop", "loop-closed", "busy", "stale-transaction"})


Words = tuple[tuple[Any, ...], ...]
Key = tuple[Words, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of a failure.

    Attributes:
        diagnosis: what is known.
        note: the story, as the exception carries it.
        steps: how many causes below the exception the complaint is.
        rewrite: whether the complaint's own message may gain the headline.
    """

    diagnosis: Diagnosis
    note: str
    steps: int
    rewrite: bool


class Repeats:
    """Remembers the last failures that were told, by what decides their diagnosis.

    Args:
        registry: knows where connections came from, and the loops.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.known: OrderedDict[Key, Told] = OrderedDict()

    def key_of(self, exc: BaseException, clue: Clue) -> Key | None:
        """What decides the diagnosis of a failure that happens right now; None where more may."""
        birth, registry = clue.birth, self.registry
        running = _get_running_loop()
        if birth is None or running is None or not clue.live or clue.action != "none":
            return None
        current, owner = registry.loops.get(running), registry.loop(birth.loop)
        if current is None or owner is None or birth.pid != os.getpid():
            return None
        first = registry.failures.get(birth.serial)
        surroundings = registry.surroundings()
        decisive = (
            (birth.place, birth.family, birth.recorded),
            (owner.info.runner, owner.info.started_by, state_of(owner.reference(), birth.pid)),
            (current.info.runner, current.info.started_by, current is owner),
            (clue.reaches_program, clue.cleanup, clue.wrapper is None),
            first is not None and (first.code, first.place),
            registry.cancellation_of((clue.target,)) is not None,
            tuple(surroundings.items()) if surroundings is not None else None,
            _stack(),
        )
        return _words_in(exc), decisive

    def find(self, exc: BaseException, clue: Clue) -> Told | None:
        """What was told of the same failure."""
        words = _words_in(exc) if self.known else ()
        if not any(said == words for said, _ in self.known):
            return None  # another complaint, or none at all
        key = self.key_of(exc, clue)
        return self.known.get(key) if key is not None else None

    def remember(self, key: Key, told: Told) -> None:
        """Recognise a failure from now on."""
        self.known[key] = told
        if len(self.known) > KEPT:
            self.known.popitem(last=False)


def _stack() -> tuple[tuple[CodeType, int], ...]:
    """The lines at work, but for loopsentry's own."""
    frames = live_frames(sys._getframe(2))
    return tuple((f.f_code, f.f_lasti) for f in frames if not _is_ours(f))


def _is_ours(frame: FrameType) -> bool:
    return frame.f_globals.get("__package__") == __package__


def is_lasting(evidence: Evidence) -> bool:
    """Whether a failure is decided by what is compared, and so may be recognised again."""
    if evidence.other is not None or evidence.holders:
        return False
    # Else the place was found elsewhere than on the stack.
    on_stack = evidence.used_at in evidence.stack
    return on_stack and all(symptom.kind in _LASTING for symptom in evidence.symptoms)


def steps_to(complaint: BaseException, exc: BaseException) -> int | None:
    """How many causes below an exception another one is, None if it is none of them."""
    chain = _chain_of(exc)
    return next((step for step, node in enumerate(chain) if node is complaint), None)


def complaint_in(exc: BaseException, steps: int) -> BaseException:
    """The exception that many causes below another one; that itself where it has not as many."""
    chain = _chain_of(exc)
    return chain[steps] if steps < len(chain) else exc


def _chain_of(exc: BaseException) -> list[BaseException]:
    """An exception and what it came of, as far as it is looked at."""
    chain: list[BaseException] = []
    node: BaseException | None = exc
    while node is not None and len(chain) < _CHAIN:
        chain.append(node)
        node = field_of(node, "__cause__") or field_of(node, "__context__")
    return chain


def _words_in(exc: BaseException) -> Words:
    return tuple(map(_words_of, _chain_of(exc)))


def _words_of(exc: BaseException) -> tuple[Any, ...]:
    """An exception's class, its text up to the first object that it names, and its traceback."""
    arguments = arguments_of(exc)
    text = arguments[0] if arguments and type(arguments[0]) is str else ""
    lines = []
    step = traceback_of(exc)  # `walk_traceback` works out line numbers too, which takes longer
    while step is not None:
        lines.append((step.tb_frame.f_code, step.tb_lasti))
        step = step.tb_next
    return type(exc), len(arguments), text.partition("<")[0][:_HEAD], tuple(lines)
