"""Connections taken out of a pool on another event loop than their own, whichever the driver.

The probes look at drivers that are bound to a loop, and only where something fails. A test may want
to know of each crossing, also of one that its driver survives and another would not. This listens
only while tests ask for it: `loopsentry.testing`, and the pytest plugin's `loopsentry_fail_on`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from ._copies import copy_of
from ._frames import (
    describe_all,
    is_user,
    place_of,
    site_of,
    task_name,
    user_place,
    user_stack,
    walk_live,
)
from ._safely import safely
from ._sockets import take_out
from .engines import listen
from .model import Birth, Clue, Diagnosis, Evidence, LoopInfo, Place, Subject, Symptom
from .registry import LoopRecord, Registry, Undo, state_of
from .report import Examiner


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A connection that was taken out of its pool on another event loop than its own.

    Attributes:
        driver: name of the driver ("asyncpg").
        tolerant: True if such connections survive a change of loop between operations.
        owner: the loop that opened it, labelled A.
        current: the loop that took it out, labelled B.
        opened_at: the user's line that caused it to be opened, None when not recorded.
        used_at: the user's line that took it out.
        opened_in: the test or fixture that opened it, None outside of a test run.
        used_in: the test or fixture that took it out, likewise.
        forked: whether it was opened in another process.
        diagnosis: what a driver that is bound to its loop makes of this.
    """

    driver: str
    tolerant: bool
    owner: LoopInfo
    current: LoopInfo
    opened_at: Place | None
    used_at: Place | None
    opened_in: str | None
    used_in: str | None
    forked: bool
    diagnosis: Diagnosis | None


@dataclass(slots=True, eq=False)
class Opened:
    """A connection that was opened while we listened.

    Attributes:
        birth: where it came from.
        record: the pool's record of it, weakly.
        pool: its pool, weakly.
        driver: the driver's connection, weakly.
    """

    birth: Birth
    record: weakref.ref[Any]
    pool: weakref.ref[Any] | None
    driver: weakref.ref[Any]


class Watch:
    """Listens to all pools from `attach()` to `detach()`.

    Args:
        examiner: makes the diagnoses.
        divert: whether a connection that would fail is kept from its use: the pool opens another,
            and nothing is sent on the foreign one. Two running loops on one asyncpg connection can
            crash the interpreter, so whoever provokes crossings diverts them. Pre-pings, which come
            before any event, are left out meanwhile.
    """

    def __init__(self, examiner: Examiner, *, divert: bool = False) -> None:
        self.examiner = examiner
        self.registry: Registry = examiner.registry
        self.divert = divert
        self.crossings: list[Crossing] = []
        self.opened: dict[int, Opened] = {}
        self._pinging: list[Any] = []
        self._foreseen: list[Diagnosis] = []
        self._attached: list[Undo] = []

    def attach(self) -> None:
        """Start listening; the probes have to listen already."""
        listeners = (
            ("connect", safely(self._connect)),
            ("checkout", self._make_checkout()),
            ("close", safely(self._close)),
            ("close_detached", safely(self._close)),
        )
        self._attached = [listen(Pool, name, listener) for name, listener in listeners]

    def detach(self) -> None:
        """Stop listening."""
        while self._attached:
            self._attached.pop()()
        while self._pinging:
            self._pinging.pop()._pre_ping = True

    # what pools tell -----------------------------------------------------------------------

    def _connect(self, connection: Any, record: Any) -> None:
        driver = _driver_connection(connection)
        birth = self.registry.birth_of(driver)
        if birth is None or birth.loop is None:
            return
        pool = getattr(record, "_ConnectionRecord__pool", None)
        self._spare_pings(pool)
        self.opened[birth.serial] = Opened(
            birth,
            weakref.ref(record),
            weakref.ref(pool) if pool is not None else None,
            weakref.ref(driver),
        )

    def _spare_pings(self, pool: Any) -> None:
        if self.divert and getattr(pool, "_pre_ping", False):
            pool._pre_ping = False
            self._pinging.append(pool)

    def _close(self, connection: Any, _record: Any = None) -> None:
        birth = self.registry.birth_of(_driver_connection(connection))
        if birth is not None:
            self.opened.pop(birth.serial, None)

    def _make_checkout(self) -> Callable[..., None]:
        cross = safely(self._cross)

        def checkout(connection: Any, record: Any, _fairy: Any) -> None:
            if cross(connection, record):
                # Caught by the pool, which opens a new connection for this record
                # (sqlalchemy/pool/base.py: _ConnectionFairy._checkout).
                raise DisconnectionError("connection of another event loop")

        return checkout

    def _cross(self, connection: Any, record: Any) -> bool:
        """Note a crossing; return whether the connection was taken from its record."""
        driver = _driver_connection(connection)
        birth = self.registry.birth_of(driver)
        loop = asyncio._get_running_loop()
        if birth is None or birth.loop is None or loop is None:
            return False
        known = self.registry.loops.get(loop)
        self._spare_pings(getattr(record, "_ConnectionRecord__pool", None))
        forked = birth.pid != os.getpid()
        if not forked and known is not None and known.info.id == birth.loop:
            return False
        sites = list(walk_live(sys._getframe(3)))
        current = self.registry.meet(loop, lambda: describe_all(sites))
        owner = self.registry.loop(birth.loop)
        if owner is None or current is None:
            return False
        pool = getattr(record, "_ConnectionRecord__pool", None)
        evidence = self._evidence(birth, (owner, current), pool, driver)
        crossing = self._describe(
            replace(evidence, used_at=user_place(sites), stack=user_stack(sites)),
            tolerant=self.registry.owner_of(driver) is None and not forked,
        )
        self.crossings.append(crossing)
        if crossing.tolerant and crossing.diagnosis is not None:
            self._foreseen.append(crossing.diagnosis)
        if not self.divert or crossing.tolerant:
            return False
        self.opened.pop(birth.serial, None)
        take_out(record, self.registry.owner_of(driver), spare=forked)
        return True

    # what it would come to -----------------------------------------------------------------

    def _evidence(
        self, birth: Birth, loops: tuple[LoopRecord, LoopRecord], pool: Any, driver: Any
    ) -> Evidence:
        owner, current = loops
        sighting = self.registry.sight(driver)
        label = sighting.label if sighting is not None else f"{_name_of(driver)} connection"
        forked = birth.pid != os.getpid()
        contexts = dict.fromkeys((*current.info.contexts, *owner.info.contexts))
        return Evidence(
            symptoms=(Symptom(kind="foreign-loop", library="loopsentry", type="", text=""),),
            subject=Subject(kind="connection", label=label, birth=birth),
            owner=owner.snapshot("A"),
            current=replace(current.info, label="B", state="running"),
            same_loop=False,
            owner_alive=state_of(owner.reference(), owner.info.pid) != "closed",
            task=task_name(),
            operation="connect",
            phase="connect",
            stage="ping",
            engine=self.examiner.engine_of(Clue(pool=pool)),
            contexts=(*(("fork",) if forked else ()), *contexts),
            framework=self.registry.surroundings(),
        )

    def _describe(self, evidence: Evidence, *, tolerant: bool) -> Crossing:
        if evidence.subject is None or evidence.subject.birth is None:
            raise AssertionError("made for a connection whose birth is known")
        if evidence.owner is None or evidence.current is None:
            raise AssertionError("made for two known loops")
        birth = evidence.subject.birth
        driver = evidence.subject.label.partition(" ")[0]
        diagnosis = self.examiner.judge(evidence)
        if diagnosis is not None:
            survived = f"{driver} survives this; asyncpg would fail here"
            unsent = "nothing was sent on it"
            kept = diagnosis.notes[:1] if evidence.forked else ()
            rest = () if evidence.forked else diagnosis.notes[1:]
            notes = (survived,) if tolerant else (*kept, unsent, *rest)
            diagnosis = replace(
                diagnosis,
                severity="warning" if tolerant else "error",
                data="not-sent",
                notes=notes,
                facts=diagnosis.facts[1:],
            )
        return Crossing(
            driver=driver,
            tolerant=tolerant,
            owner=evidence.owner,
            current=evidence.current,
            opened_at=birth.place,
            used_at=evidence.used_at,
            opened_in=_who(birth.framework),
            used_in=_who(evidence.framework),
            forked=evidence.forked,
            diagnosis=diagnosis,
        )

    def take_foreseen(self) -> list[Diagnosis]:
        """Diagnoses since the last time of what nothing failed for: crossings, and leaks."""
        found, self._foreseen = [*self._foreseen, *self._leaks()], []
        return found

    def _leaks(self) -> Iterable[Diagnosis]:
        """Connections that are still open though their loop is closed."""
        for serial, opened in copy_of(self.opened.items):
            owner = self.registry.loop(opened.birth.loop)
            driver = opened.driver()
            if owner is None or driver is None:
                self.opened.pop(serial, None)
                continue
            if state_of(owner.reference(), owner.info.pid) != "closed":
                continue
            self.opened.pop(serial, None)
            if self.examiner.is_closed(driver):
                continue
            diagnosis = self._leak(opened, owner, driver)
            if diagnosis is not None:
                yield diagnosis

    def _leak(self, opened: Opened, owner: LoopRecord, driver: Any) -> Diagnosis | None:
        pool = opened.pool() if opened.pool is not None else None
        evidence = replace(
            self._evidence(opened.birth, (owner, owner), pool, driver),
            symptoms=(Symptom(kind="loop-closed", library="loopsentry", type="", text=""),),
            current=owner.snapshot("A"),
            owner_alive=False,
            used_at=opened.birth.place,
            stack=opened.birth.stack,
            task=opened.birth.task,
            operation=None,
            phase="cleanup",
            collected=True,
            handled=False,
            framework=opened.birth.framework or self.registry.surroundings(),
        )
        diagnosis = self.examiner.judge(evidence)
        if diagnosis is None:
            return None
        return replace(
            diagnosis,
            title="connection left open when its event loop ended",
            notes=("nothing failed; the next loop that takes it out of the pool will",),
            facts=diagnosis.facts[1:],
        )


# connections -------------------------------------------------------------------------------


def _driver_connection(connection: Any) -> Any:
    return getattr(connection, "driver_connection", connection)


def _name_of(driver: Any) -> str:
    return type(driver).__module__.partition(".")[0]


def _who(framework: Any) -> str | None:
    """The fixture, or else the test, route or task that something happened in."""
    keys = ("fixture", "test", "route", "task")
    return next((framework[key] for key in keys if key in framework), None) if framework else None


# loops -------------------------------------------------------------------------------------


def calling_place() -> Place | None:
    """The nearest of the user's lines on the present stack."""
    return user_place(walk_live(sys._getframe(1)))


def waiting_place(task: asyncio.Task[Any]) -> Place | None:
    """The innermost of the user's lines at which a task waits, as far as coroutines go."""
    found = None
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None and is_user(frame):
            found = place_of(site_of(frame))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return found


def name_loop(
    registry: Registry, loop: AbstractEventLoop, runner: str, place: Place | None, run: int
) -> None:
    """Record a loop that we started ourselves, before anything is opened on it."""
    record = registry.meet(loop, lambda: ())
    if record is not None:
        record.info = replace(record.info, runner=runner, started_by=place, run=run)
