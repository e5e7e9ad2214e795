"""Failures that are the same as one that was told: recognised before evidence is collected.

A pool that was left unusable fails in each request, and each time for the same reason. What decides
a diagnosis is compared: the lines at work, the complaint's words up to the first object in them,
where the connection was opened, both loops' starters and the owner's state, and what was recorded
of the connection. Where all of that is the same, so is the diagnosis.
"""

from __future__ import annotations

import os
import sys
import weakref
from asyncio import AbstractEventLoop, _get_running_loop, mixins
from collections import OrderedDict
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from ._frames import live_frames, variables_in
from .exceptions import arguments_of, field_of, traceback_of
from .model import Clue, Diagnosis, Evidence
from .registry import LoopRecord, Registry, state_of

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
        primitive: the lock, queue or event that refused, weakly; None for a connection.
    """

    diagnosis: Diagnosis
    note: str
    steps: int
    rewrite: bool
    primitive: weakref.ref[Any] | None = None


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
        running = _get_running_loop()
        if running is None or clue.action != "none":
            return None
        known = self._connection(clue) if clue.birth is not None else self._primitive(exc, running)
        current = self.registry.loops.get(running)
        if known is None or current is None:
            return None
        owner, origin = known
        surroundings = self.registry.surroundings()
        decisive = (
            origin,
            (owner.info.runner, owner.info.started_by, state_of(owner.reference(), owner.info.pid)),
            (current.info.runner, current.info.started_by, current is owner),
            (clue.reaches_program, clue.cleanup, clue.wrapper is None),
            tuple(surroundings.items()) if surroundings is not None else None,
            _stack(),
        )
        return _words_in(exc), decisive

    def _connection(self, clue: Clue) -> tuple[LoopRecord, tuple[Any, ...]] | None:
        """The owner of the connection that fails right now, and what was recorded of it."""
        birth, registry = clue.birth, self.registry
        owner = registry.loop(birth.loop) if birth is not None else None
        if birth is None or owner is None or not clue.live or birth.pid != os.getpid():
            return None
        first = registry.failures.get(birth.serial)
        return owner, (
            (birth.place, birth.family, birth.recorded),
            first is not None and (first.code, first.place),
            registry.cancellation_of((clue.target,)) is not None,
        )

    def _primitive(
        self, exc: BaseException, running: AbstractEventLoop
    ) -> tuple[LoopRecord, tuple[Any, ...]] | None:
        """The owner of the lock that refused the running loop, and which lock that is."""
        primitive = refusing_primitive(exc, running)
        owner = self.registry.loops.get(getattr(primitive, "_loop", None) or running)
        if primitive is None or owner is None or owner.info.pid != os.getpid():
            return None
        return owner, (id(primitive),)

    def find(self, exc: BaseException, clue: Clue) -> Told | None:
        """What was told of the same failure."""
        words = _words_in(exc) if self.known else ()
        if not any(said == words for said, _ in self.known):
            return None  # another complaint, or none at all
        key = self.key_of(exc, clue)
        told = self.known.get(key) if key is not None else None
        if told is None or told.primitive is None:
            return told
        # An identity comes back when the object that had it is gone.
        refuses = refusing_primitive(exc, _get_running_loop())
        return told if refuses is not None and told.primitive() is refuses else None

    def remember(self, key: Key, told: Told) -> None:
        """Recognise a failure from now on."""
        self.known[key] = told
        if len(self.known) > KEPT:
            self.known.popitem(last=False)


def refusing_primitive(exc: BaseException, running: AbstractEventLoop | None) -> Any:
    """The lock, queue or event that refused to be used on the running loop; None if none did.

    It refuses in a method of its own, which has that loop as a variable (Lib/asyncio/mixins.py).
    """
    step = traceback_of(exc)
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None or step.tb_frame.f_code is not _GET_LOOP:
        return None
    variables = variables_in(step.tb_frame)
    return variables.get("self") if variables.get("loop") is running else None


_GET_LOOP = vars(mixins)["_LoopBoundMixin"]._get_loop.__code__


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
