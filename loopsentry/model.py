"""The nouns: what is recorded, what is found, what is said.

Every value here is frozen and knows nothing of any library. Rooms hand these to each other; a
shelf entry needs no other import.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

Certainty = Literal["proven", "likely", "undetermined"]
Severity = Literal["error", "warning"]
#: The operation that nobody asked for: the garbage collector gave a connection back.
COLLECT = "collect"

Phase = Literal["connect", "use", "cleanup"]
LoopState = Literal["running", "stopped", "closed"]
ObjectKind = Literal["connection", "session", "pool", "engine", "primitive", "future", "client"]
DataRisk = Literal["not-sent", "maybe-executed", "unknown"]
Stage = Literal["ping", "begin", "statement", "commit"]
Action = Literal["none", "evicted", "raised", "reconnected"]
Ending = Literal["recorded", "read", "none", "unknown"]

Mode = Literal["annotate", "raise", "reconnect"]
MODES: tuple[Mode, ...] = get_args(Mode)

SymptomKind = Literal[
    "foreign-loop",  # a text that speaks of another event loop
    "loop-closed",  # a text that speaks of a closed loop or transport
    "busy",  # a text that speaks of another operation in progress
    "stale-transaction",  # the driver is inside a transaction nobody knows of
    "provisioning",  # a session is opening its connection for somebody else
    "illegal-state",  # a session method was called while another one ran
    "cancelled",  # a cancellation or time-out lies in the chain
    "invalid-transaction",  # the transaction was invalidated by an earlier failure
    "disconnected",  # the server or the network ended the connection
    "missing-greenlet",  # database work outside the greenlet bridge
    "nested-run",  # a loop was started inside a running loop
    "exhausted",  # no connection of a pool came free in time
    "released",  # the object was already given back
    "ended",  # a transaction's own block is not over, but its transaction is, or it is at work
    "taken",  # a flush, a transaction or a savepoint that is perhaps another task's
    "cut-off",  # the server was asked to end the statement, as a close does with what still runs
    "refused",  # a crossing was stopped before anything was sent
    "replaced",  # a crossing was healed before anything was sent
]


def mode_of(asked: object) -> Mode | None:
    """A mode as it was asked for in some setting, None if there is no such mode."""
    return next((mode for mode in MODES if mode == asked), None)


#: Give the name of a cell whose code is compiled under a file's name; filled by a notebook's shell.
cells: list[Callable[[str], str | None]] = []


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's own code.

    Attributes:
        file: absolute path, or a name in angle brackets for code without a file.
        line: line number, from 1.
        function: the function's name, without module or class.
        columns: where in that line the expression stands that was at work, as bytes from 0 and up
            to but without the second; None where that is not known (PEP 657).
    """

    file: str
    line: int
    function: str
    columns: tuple[int, int] | None = field(default=None, compare=False, repr=False)

    @property
    def short(self) -> str:
        """`path:line function()`, the path relative to the working directory where that helps."""
        return f"{self.path}:{self.line} {self.call}"

    @property
    def path(self) -> str:
        """The file as the reader would type it from the working directory; a cell's number."""
        for name_of in cells:
            cell = name_of(self.file)
            if cell is not None:
                return cell
        try:
            relative = os.path.relpath(self.file)
        except (ValueError, OSError):  # another drive, or the working directory is gone
            return self.file
        return self.file if relative.startswith("..") or self.file.startswith("<") else relative

    @property
    def call(self) -> str:
        """The function as the reader would call it; a module has no parentheses."""
        return self.function if self.function.startswith("<") else f"{self.function}()"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack, reduced to what recognition needs.

    Attributes:
        module: the module's `__name__`.
        function: the code object's name.
        place: file, line and function.
        user: whether it is the user's own code.
        coroutine: whether it is a coroutine or an asynchronous generator.
        target: the first argument of a library's function, `self` in a method; never kept beyond
            one examination.
    """

    module: str
    function: str
    place: Place
    user: bool
    coroutine: bool
    target: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopInfo:
    """One event loop, as it was when this was made.

    Attributes:
        id: number of the loop in this process, never reused (`id(loop)` is).
        label: "A" for the loop that owns, "B" for the loop that uses; "" before it has a role.
        kind: "asyncio", "uvloop" or the module of another implementation.
        runner: what runs it, in the reader's words ("asyncio.run", "uvicorn"), if recognised.
        started_by: the user's frame that started it, None when it was not recorded.
        run: the how-manieth recorded loop started from that place, from 1.
        scope: loop scope of a test plugin, if any.
        state: "running", "stopped" or "closed".
        thread: name of the thread it was recorded in.
        pid: process that the loop belongs to.
        contexts: names of the recognised contexts, the most telling first.
        followed: names of fixes that the program follows already, where this loop is concerned.
    """

    id: int
    label: str = ""
    kind: str = "asyncio"
    runner: str | None = None
    started_by: Place | None = None
    run: int | None = None
    scope: str | None = None
    state: LoopState = "running"
    thread: str = ""
    pid: int = 0
    contexts: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`loop A`, or `loop 7` for a loop without a role."""
        return f"loop {self.label or self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Where, when and on which loop an object came into being.

    Attributes:
        serial: number of the birth in this process, never reused.
        kind: what was born.
        loop: number of the owning loop (`LoopInfo.id`), None when it has none.
        recorded: False when the object was older than the records and only inspected later.
        place: the user's frame that caused it, None when not recorded.
        task: name of the task it happened in, None outside tasks or when not recorded.
        time: when, in UTC.
        pid: process it happened in.
        thread: name of the thread it happened in.
        family: number shared by everything born of one pool, None when that is unknown.
        stack: the user's frames at that moment, the nearest first.
        framework: what of a framework was running at that moment.
    """

    serial: int
    kind: ObjectKind
    loop: int | None
    recorded: bool = True
    place: Place | None = None
    task: str | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    pid: int = field(default_factory=os.getpid)
    thread: str = ""
    family: int | None = None
    stack: tuple[Place, ...] = ()
    framework: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """What a library complained of, without the library's words deciding anything.

    Attributes:
        kind: the complaint's class.
        library: who complained ("asyncio", "asyncpg", "sqlalchemy", …).
        type: qualified name of the exception's type.
        text: the library's own words, fit to be repeated: without what they show of the program.
        quoted: True if the words were said by somebody else, in an exception of the program's own.
        sent: whether the operation's bytes may have left before the complaint, None if unknown.
        by_program: True if the complaint can only be made of what the program closed itself.
        under_way: True if the complaint can only be made while another operation is under way.
        by_server: True if the complaint repeats the server's own word.
        about: what kind of object the complaint is about, where it can only be one.
        at: the attribute that it names, if it names one.
        begun: True if it comes in the middle of a transaction, after the server had begun it.
    """

    kind: SymptomKind
    library: str
    type: str
    text: str
    quoted: bool = False
    sent: bool | None = None
    by_program: bool = False
    under_way: bool = False
    by_server: bool = False
    about: ObjectKind | None = None
    at: str | None = None
    begun: bool = False


def says(symptoms: Iterable[Symptom], *kinds: SymptomKind) -> bool:
    """Whether one of these complaints is among them."""
    return any(symptom.kind in kinds for symptom in symptoms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An object that a probe recognised in a stack.

    Attributes:
        kind: what it is.
        label: what the reader calls it ("AsyncSession", "asyncpg connection", "asyncio.Lock").
        library: whose object it is.
        target: the object itself; never kept beyond one examination.
        loop: the event loop the object says it belongs to, if it says so.
        tolerant: True if such objects survive a change of loop between operations.
        closed: True if a connection says that it is closed.
        aborted: True if it was ended from this side without a farewell.
        inner: the next object inside it that may say more (a driver's connection), if any.
        block: what opens another one in an `async with`, in the words of its library; empty if
            nothing does yet.
    """

    kind: ObjectKind
    label: str
    library: str
    target: Any
    loop: Any = None
    tolerant: bool = False
    closed: bool = False
    aborted: bool = False
    inner: Any = None
    block: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """What whoever met an exception knows beyond the exception.

    Attributes:
        target: the driver's connection it is about.
        birth: where that came from.
        engine: the engine it came through.
        pool: the pool it came from.
        wrapper: the exception that will be raised instead, not yet linked to the first.
        live: whether the failure is happening right now, on this very stack.
        cleanup: whether it happened while something was cleaned up.
        reaches_program: False when the exception was caught before the program could see it.
        ignored: whether the interpreter will print the exception and go on.
        framework: what of a framework was running.
        retire: gives the object up softly, so that it is replaced at its next use.
        action: what is being done about the object.
    """

    target: Any = None
    birth: Birth | None = None
    engine: Any = None
    pool: Any = None
    wrapper: BaseException | None = None
    live: bool = False
    cleanup: bool = False
    reaches_program: bool = True
    ignored: bool = False
    framework: Mapping[str, str] | None = None
    retire: Callable[[], None] | None = None
    action: Action = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object a diagnosis is about.

    Attributes:
        kind: what it is.
        label: what the reader calls it.
        birth: where it came from, None when nothing is known.
        tolerant: True if such objects survive a change of loop between operations.
        primitive: True for something to wait on (a lock, a queue), whoever it belongs to.
        variable: the global variable that holds it in the user's modules, if one was looked for.
        made: how their source makes it, without strings ("asyncio.Semaphore(5)"), if that is found.
        block: what opens another one in an `async with`; empty if nothing does yet.
    """

    kind: ObjectKind
    label: str
    birth: Birth | None = None
    tolerant: bool = False
    primitive: bool = False
    variable: str | None = None
    made: str | None = None
    block: str | None = None

    @property
    def name(self) -> str:
        """What a headline calls it."""
        return self.label if self.kind == "client" else self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The engine a diagnosis is about.

    Attributes:
        url: the engine's URL with every secret masked.
        driver: name of the driver ("asyncpg").
        variable: the global variable that holds it in the user's modules, if one was found.
        module_file: the file of that module.
        sessions: the global variable that holds its sessionmaker, if one was found.
        created_at: where it was made, when that was recorded.
        loops: numbers of the loops that own the connections of its present pool.
        asynchronous: whether its driver is an asynchronous one.
        settings: what was asked of its pool: "pre-ping", "null-pool", "loop-local-pool".
    """

    url: str
    driver: str
    variable: str | None = None
    module_file: str | None = None
    sessions: str | None = None
    created_at: Place | None = None
    loops: tuple[int, ...] = ()
    asynchronous: bool = True
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Which of a cause's forms a failure has, where that changes the cure.

    Attributes:
        name: the form, as the headers of fixes name it.
        headline: what is wrong, in the reader's names.
        names: more of the reader's names, for snippets.
    """

    name: str
    headline: str
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What another task was doing with the same object.

    Attributes:
        task: the task's name.
        function: the user's function in it.
        file: that function's file.
        line: the line it had reached.
        state: "opening a connection", "waiting", "cancelled", …
    """

    task: str
    function: str
    file: str
    line: int
    state: str

    @property
    def probable(self) -> bool:
        """Whether it was read off the source, not found at work."""
        return self.state.startswith("probably")

    @property
    def place(self) -> Place:
        """Where it was."""
        return Place(self.file, self.line, self.function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One who waits while an event loop stands still.

    Attributes:
        task: the task's name, None where a thread waits.
        thread: name of the thread.
        place: the user's line, None where there is none.
        awaits: what for, in words.
        seconds: for how long that has been seen.
    """

    task: str | None = None
    thread: str = ""
    place: Place | None = None
    awaits: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One who has a connection of a pool.

    Attributes:
        label: what holds it, as "AsyncSession", or "nothing alive".
        task: the task's name, if one is known.
        place: the user's line that has it in hand, if one is known.
        opened_at: where the connection was opened.
        seconds: for how long it has been out, None where that is not known.
        birth: number of the connection's birth, if it was recorded.
        searched: whether all tasks were looked at for one that has it in hand.
    """

    label: str
    task: str | None = None
    place: Place | None = None
    opened_at: Place | None = None
    seconds: float | None = None
    birth: int | None = None
    searched: bool = False


HangKind = Literal["lost-wakeup", "self-deadlock", "unfinished-cancellation", "pool-exhausted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Why an event loop stands still.

    Attributes:
        kind: the name of its cause.
        certainty: how sure.
        waits: who waits for what, the blocked one first.
        blocking: whether the loop's own thread is blocked.
        lock: whether it is a lock of `threading` that it is blocked on.
        own: whether the program's own code swallowed a cancellation.
        unseen: what another thread did that the loop was not woken for, where it is no result:
            "not-started" for a task that it made, "stopping" for `loop.stop()`.
    """

    kind: HangKind
    certainty: Certainty
    waits: tuple[Wait, ...]
    blocking: bool = False
    lock: bool = False
    own: bool = False
    unseen: Literal["not-started", "stopping"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstFailure:
    """The first failure that left an object unusable; what comes later is its echo.

    Attributes:
        time: when, in UTC.
        code: its diagnosis' code, None when it was not diagnosed.
        place: where it surfaced.
        original: the exception in its library's words.
        diagnosis: that diagnosis.
    """

    time: datetime
    code: str | None
    place: Place | None
    original: Original | None = None
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The exception as its library wrote it.

    Attributes:
        type: qualified type name.
        message: the driver error's first argument, never a `str()` that holds parameters.
    """

    type: str
    message: str


_SENT: dict[Stage, tuple[DataRisk, str]] = {
    "ping": ("not-sent", "only the pool's pre-ping was sent, no statement"),
    "begin": ("not-sent", "BEGIN may have reached the server, nothing was committed"),
    "commit": ("maybe-executed", "the COMMIT may have been executed by the server"),
    "statement": ("maybe-executed", "the statement may have been executed by the server"),
}
#: Runners of a loop that the program itself starts and that ends with the call.
_RUN_ONCE = ("asyncio.run", "uvloop.run", "run_until_complete", "run_forever")

_STOPPED = {
    "refused": "stopped at checkout, nothing was sent",
    "replaced": "replaced at checkout by a new connection, nothing was sent",
}
#: What a session says that is at work for somebody else.
REFUSALS: tuple[SymptomKind, ...] = ("provisioning", "illegal-state", "ended", "taken")
#: sqlalchemy/orm/state_changes.py names the method that it refuses.
_TIDYING = ("Method 'close()'", "Method 'rollback()'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known about one failure; what `causes/` judge.

    Attributes:
        symptoms: the complaints found in the exception's whole tree, the first raised first.
        subject: the object they are about, None when none was found.
        owner: the loop that owns the subject.
        current: the loop it was used from.
        same_loop: whether those two are one; None when either is unknown.
        owner_alive: whether the owning loop was still open when this happened; None if it is
            closed by now and may have been open then, in another thread.
        nowhere: the thread it happened in, where no loop was running there; None where one was, or
            where that is not known.
        used_at: the user's line.
        stack: the user's frames, the nearest first.
        task: the current task's name.
        operation: the library's public method that the user called.
        phase: opening, using or cleaning up.
        stage: how far the database work had come: the pool's ping, BEGIN, a statement, COMMIT.
        collected: whether the garbage collector, not the program, caused it.
        leaving: whether a block that ends by a commit was being left.
        other: another task's operation on the same object.
        apart: whether that task works on it through a session of its own, while another's is here.
        shared: whether the failing functions started several at once that use it.
        first_failure: what had already made the object unusable.
        engine: the engine it came from.
        face: which of its cause's forms it has, if a probe can tell.
        contexts: recognised contexts, the most telling first.
        followed: names of fixes that the program follows already.
        framework: what of a framework was running.
        foreign_awaited: whether a future or task of another loop was awaited.
        cancelled: whether a cancellation or time-out lies in the chain or was recorded.
        cancellation: where a recorded cancellation happened.
        closed: whether the driver's connection says that it is closed.
        closing: how it is known whether the program itself closed it: "recorded", "read" off the
            code that had run, or "none", nothing that has run or could run did; else "unknown".
        closed_at: where the program itself closed it; None if it did not, or that is not known.
        loop_traced: whether a loop's own runner stands in the traceback.
        handled: whether an exception of this failure reached the program.
        pid: this process.
        facts: what was found, in words.
        original: the exception in its library's words.
        hang: why the loop stands still, where nothing was raised.
        holders: who has the connections of a pool that has none left.
    """

    symptoms: tuple[Symptom, ...]
    subject: Subject | None = None
    owner: LoopInfo | None = None
    current: LoopInfo | None = None
    same_loop: bool | None = None
    owner_alive: bool | None = None
    nowhere: str | None = None
    used_at: Place | None = None
    stack: tuple[Place, ...] = ()
    task: str | None = None
    operation: str | None = None
    phase: Phase = "use"
    stage: Stage = "statement"
    collected: bool = False
    leaving: bool = False
    other: Operation | None = None
    apart: bool = False
    shared: bool = False
    first_failure: FirstFailure | None = None
    engine: EngineInfo | None = None
    face: Face | None = None
    contexts: tuple[str, ...] = ()
    followed: tuple[str, ...] = ()
    framework: Mapping[str, str] | None = None
    cancelled: bool = False
    cancellation: Place | None = None
    closed: bool = False
    closing: Ending = "unknown"
    closed_at: Place | None = None
    loop_traced: bool = False
    handled: bool = True
    pid: int = field(default_factory=os.getpid)
    facts: tuple[str, ...] = ()
    original: Original | None = None
    hang: Hang | None = None
    holders: tuple[Holder, ...] = ()

    def has(self, *kinds: SymptomKind) -> bool:
        """Whether one of these complaints is in the tree."""
        return says(self.symptoms, *kinds)

    def judge_hang(self, cause: str, note: str, headline: str = "") -> Verdict | None:
        """What the cause of that name says of a loop that stands still, None if it has another."""
        if self.hang is None or self.hang.kind != cause:
            return None
        return Verdict(
            certainty=self.hang.certainty,
            explains=frozenset({"hang"}),
            one_loop=True,
            headline=headline,
            notes=(note,),
        )

    @property
    def closed_at_work(self) -> bool:
        """Whether the program closed it in the middle of an operation."""
        cut = any(each.kind == "disconnected" and each.sent for each in self.symptoms)
        return (cut or self.has("cut-off")) and self.closed_by_program

    @property
    def closed_by_program(self) -> bool:
        """Whether the program itself closed it, as far as that is known."""
        return self.closing in ("recorded", "read")

    @property
    def outrun(self) -> bool:
        """Whether a task was cancelled, and its object used again before that task was over."""
        cancelled = self.other is not None and self.other.state == "cancelled"
        return cancelled and self.phase != "cleanup" and self.same_loop is not False

    @property
    def met(self) -> bool:
        """Whether another task has to do with it: one that was found, or started beside."""
        return self.other is not None or self.shared

    @property
    def undone(self) -> bool:
        """Whether nothing but a clean-up was refused, because the session was at work."""
        refusals = [each for each in self.symptoms if each.kind in REFUSALS]
        tidying = all(each.text.startswith(_TIDYING) for each in refusals)
        return self.phase == "cleanup" and bool(refusals) and (tidying or len(refusals) == 1)

    @property
    def left_unusable(self) -> bool:
        """Whether the complaints are those of an object that is busy or on a wrong loop."""
        return self.has("foreign-loop", "loop-closed", "busy", "stale-transaction")

    @property
    def forked(self) -> bool:
        """Whether the subject was born in another process."""
        birth = self.subject.birth if self.subject else None
        return birth is not None and birth.pid != self.pid

    @property
    def crossed(self) -> bool:
        """Whether an object bound to its loop was used from another one, in one process."""
        return (
            self.subject is not None
            and self.subject.kind in ("connection", "session", "pool", "client")
            and not (self.subject.tolerant or self.subject.primitive)
            and self.same_loop is False
            and not self.forked
        )

    @property
    def crossing_failed(self) -> bool:
        """Whether using such an object failed; tidying up what nothing had damaged is no use."""
        tidying = self.phase == "cleanup" and self.first_failure is None
        stopped = self.has("refused", "replaced")
        return self.crossed and (stopped or (self.left_unusable and not tidying))

    @property
    def conditions(self) -> frozenset[str]:
        """What holds here of what the headers of fixes ask for, in their words."""
        owner = self.owner
        pool = self.subject is not None and self.subject.kind == "pool"
        told = {
            "engine": self.engine is not None,
            "no-engine": self.engine is None,
            "owner-running": owner is not None and owner.state == "running",
            "owner-elsewhere": owner is not None
            and bool(self.owner_alive)
            and "testclient" not in owner.contexts,
            "collected": self.collected,
            "closed": self.closed_by_program or (pool and self.has("released")),
            "client": self.subject is not None and self.subject.kind == "client",
            "no-pool": self.engine is None
            and self.subject is not None
            and self.subject.block == "",
            "in-use": self._died_in_use,
            "nested": self._asks_twice,
            "owner-run": owner is not None
            and owner.runner in _RUN_ONCE
            and self.owner_alive is False,
            "other-test": self._by_other_test,
            "opened-before": self._opened_before,
            "unittest": owner is not None and owner.runner == "IsolatedAsyncioTestCase",
            "starved": self.hang is not None and not self.hang.blocking,
            "locked": self.hang is not None and self.hang.lock,
            "own-task": self.hang is not None and self.hang.own,
        }
        found = {name for name, holds in told.items() if holds}
        found.update(self.engine.settings if self.engine is not None else ())
        found.update({self.face.name} if self.face is not None else ())
        found.update({self.hang.unseen} if self.hang and self.hang.unseen else ())
        return frozenset(found)

    @property
    def _asks_twice(self) -> bool:
        """Whether who has a connection of the engine's asks for another one in its block."""
        places = {holder.place for holder in self.holders} - {None}
        return self.engine is not None and not places.isdisjoint(self.stack)

    @property
    def _died_in_use(self) -> bool:
        """Whether a transaction had begun, or the pool asks before each use."""
        asked = self.engine is not None and "pre-ping" in self.engine.settings
        return asked or any(symptom.begun for symptom in self.symptoms)

    @property
    def _opened_before(self) -> bool:
        """Whether an engine's connection is older than the records, as what an import runs."""
        birth = self.subject.birth if self.subject is not None else None
        told = self.owner is not None and self.owner.started_by is not None
        return self.engine is not None and birth is not None and not (birth.recorded or told)

    @property
    def _by_other_test(self) -> bool:
        """Whether another test or fixture than the one at work opened it."""
        birth = self.subject.birth if self.subject is not None else None
        then, now = birth.framework if birth is not None else None, self.framework
        if not then or not now:
            return False
        return any(then.get(role) != now.get(role) for role in ("test", "fixture"))

    @property
    def severity(self) -> Severity:
        """A crossing that was healed cost the program nothing."""
        return "warning" if self.has("replaced") else "error"

    @property
    def sent(self) -> tuple[DataRisk, str]:
        """What may have reached the server, as the record's word and as a note.

        asyncpg writes an operation's bytes before it awaits the answer, so a wait that fails says
        nothing of them; a refusal ("another operation is in progress") comes before any byte
        (asyncpg/protocol/protocol.pyx, `_check_state`).
        """
        stopped = [_STOPPED[each.kind] for each in self.symptoms if each.kind in _STOPPED]
        if stopped:
            return "not-sent", stopped[0]
        if self.subject is not None and self.subject.kind == "client":
            return "unknown", "whether anything was sent is not known"
        if self.has("busy", "stale-transaction") and not self.has("foreign-loop", "loop-closed"):
            return "not-sent", "the driver refused before anything was sent"
        return _SENT[self.stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one cause says of the evidence.

    Attributes:
        certainty: how sure; "proven" only from recorded or inspected objects.
        explains: the symptom kinds and facts it accounts for, by name.
        severity: "warning" when the program lost nothing.
        headline: a more exact title than the cause's own.
        data: what may have reached the server.
        notes: facts worth a line of the message.
        one_loop: True if only one loop has part in it, the one it happened on.
    """

    certainty: Certainty
    explains: frozenset[str]
    one_loop: bool = False
    severity: Severity = "error"
    headline: str | None = None
    data: DataRisk = "unknown"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """One cure, as offered in one diagnosis.

    Attributes:
        id: its name on the shelf.
        title: one line that says what to do.
        snippet: the code, with the reader's names where they are known.
        reason: why it fits here.
    """

    id: str
    title: str
    snippet: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is known about one failure, and what to do. The contract's record, field by field.

    Attributes:
        id: key of the mistake in this process.
        version: loopsentry's version.
        time: when it was made, in UTC.
        pid: process.
        code: "LS101".
        cause: "closed-loop".
        title: the headline.
        certainty: "proven", "likely" or "undetermined".
        severity: "error" or "warning".
        phase: "connect", "use" or "cleanup".
        context: the most telling recognised context, or "unknown".
        framework: what of a framework was running, where known.
        nowhere: the thread it happened in, where no loop was running there.
        others: what else is wrong in the same exception, as code, headline and certainty.
        used_at: *here*.
        stack: the user's frames there, the nearest first.
        current_task: name of the task that used it.
        operation: the public method the user called.
        owner_loop: the loop that owns the object.
        current_loop: the loop it was used from.
        object: what it is about.
        engine: the engine.
        other_operation: the operation already in progress.
        first_failure: the failure of which this is an echo.
        data: what may have reached the server.
        action: what loopsentry did about the object.
        facts: what was found, in words.
        notes: those facts that the message tells.
        fixes: cures, best first.
        original: the exception in its library's words.
        waits: who waits for what, where a loop stands still, the blocked one first.
        holders: who has the connections of a pool that has none left.
    """

    id: str
    version: str
    time: datetime
    pid: int
    code: str
    cause: str
    title: str
    certainty: Certainty
    severity: Severity
    phase: Phase
    context: str = "unknown"
    framework: Mapping[str, str] | None = None
    nowhere: str | None = None
    others: tuple[tuple[str, str, Certainty], ...] = ()
    used_at: Place | None = None
    stack: tuple[Place, ...] = ()
    current_task: str | None = None
    operation: str | None = None
    owner_loop: LoopInfo | None = None
    current_loop: LoopInfo | None = None
    object: Subject | None = None
    engine: EngineInfo | None = None
    other_operation: Operation | None = None
    first_failure: FirstFailure | None = None
    data: DataRisk = "unknown"
    action: Action = "none"
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    original: Original | None = None
    waits: tuple[Wait, ...] = ()
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What a context says of a stack.

    Attributes:
        context: the context's name.
        runner: what it calls the thing that runs the loop, None to leave that open.
        started_by: the user's frame that started the loop, when the context knows better than the
            general rule.
        framework: what of the framework was running.
        scope: loop scope of a test plugin.
        followed: names of fixes that the program follows already, so that they are not offered.
    """

    context: str
    runner: str | None = None
    started_by: Place | None = None
    framework: Mapping[str, str] | None = None
    scope: str | None = None
    followed: tuple[str, ...] = ()


#: A stack from the innermost frame outwards.
Stack = Sequence[Frame]

#: Called by probes and hooks with an exception that may need a diagnosis.
Reporter = Callable[..., "Diagnosis | None"]
