"""Collect, diagnose, annotate, deduplicate, hand to the sinks."""

from __future__ import annotations

import weakref
from asyncio import _get_running_loop
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from ._frames import Site
from ._safely import complain
from .annotation import annotate, shown_before, told_elsewhere, told_on
from .catalog import Shelves
from .diagnosis import diagnose, gravity
from .evidence import Case, Collector
from .model import REFUSALS, Clue, Diagnosis, EngineInfo, Evidence, Hang, Mode
from .recognition import Recogniser
from .registry import Registry
from .renderers import plain
from .repeats import Repeats, Told, complaint_in, is_lasting, refusing_primitive, steps_to
from .story import WIDTH


class Sink(Protocol):
    """A destination of diagnoses."""

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Take one diagnosis; `shown` says that an exception's note already tells it."""

    def close(self) -> None:
        """Let go of what is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How diagnoses are made and shown.

    Attributes:
        on_mismatch: "annotate", "raise" or "reconnect".
        rewrite_message: whether messages gain the headline; the note comes in any case.
        evict: whether a connection that was left unusable is ended, and replaced at its next
            checkout.
        verbose: whether messages tell everything that is known.
        watch: seconds that a loop may stand still before that is looked into; 0 for no watch.
        sinks: names of the destinations that are opened beside those that always are.
    """

    on_mismatch: Mode = "annotate"
    rewrite_message: bool = True
    evict: bool = False
    verbose: bool = False
    watch: float = 0.0
    sinks: tuple[str, ...] = ()


class Examiner:
    """Makes diagnoses of exceptions from the shelves and the records.

    `diagnose` only says what is known. `report` is what probes and hooks call: it also writes on
    the exception, retires what is unusable, and tells the sinks, once for each mistake.
    """

    def __init__(
        self, registry: Registry, shelves: Shelves, recogniser: Recogniser, version: str
    ) -> None:
        self.registry = registry
        self.shelves = shelves
        self.version = version
        self.collector = Collector(registry, shelves.probes, recogniser.recognise)
        registry.sight = self.collector.sight
        self.options = Options()
        self.repeats = Repeats(registry)
        self.sinks: list[Sink] = []
        self.shown: set[str] = set()
        self.subscribers: list[Callable[[Diagnosis], object]] = []
        self.advisers: list[Callable[[Diagnosis], Diagnosis]] = []
        self.witnesses: list[Callable[[Diagnosis], object]] = []

    def diagnose(self, exc: BaseException, clue: Clue | None = None) -> Diagnosis | None:
        """What is known about an exception; None if nothing in it concerns event loops."""
        gravest = self._gravest(exc, clue or Clue())
        return gravest[1] if gravest is not None else None

    def _gravest(self, exc: BaseException, clue: Clue) -> tuple[Case, Diagnosis] | None:
        """The gravest of an exception's incidents; the others are counted with it."""
        judged = [
            (case, diagnosis)
            for case in self.collector.collect(exc, clue)
            if (diagnosis := self.judge(case.evidence)) is not None
        ]
        if not judged:
            return None
        case, told = min(judged, key=lambda pair: gravity(pair[1]))
        others = [other for _, other in judged if other is not told]
        listed = tuple((each.code, each.title, each.certainty) for each in others)
        return case, replace(told, others=listed) if listed else told

    def judge(self, evidence: Evidence) -> Diagnosis | None:
        """The diagnosis of evidence, with the cures that advisers know better; None if no cause."""
        diagnosis = diagnose(evidence, self.shelves.causes, self.shelves.fixes, self.version)
        if diagnosis is None:
            return None
        for advise in self.advisers:
            try:
                diagnosis = advise(diagnosis)
            except Exception:
                complain(f"adviser {advise!r}")
        return diagnosis

    def render(self, diagnosis: Diagnosis, *, width: int = WIDTH, beside: bool = False) -> str:
        """The whole story of a diagnosis, in plain ASCII.

        Args:
            diagnosis: what is told.
            width: columns to keep to.
            beside: whether the exception itself, with its own words, is shown right above.
        """
        return plain.render(diagnosis, verbose=self.options.verbose, width=width, beside=beside)

    def engine_of(self, clue: Clue) -> EngineInfo | None:
        """The engine that a clue names, or whose pool it names."""
        return self.collector.engine_of(clue)

    def is_closed(self, target: Any) -> bool:
        """Whether a driver's connection says of itself that it is closed."""
        sighting = self.collector.sight(target)
        return sighting is not None and sighting.closed

    def report_shown(self, exc: BaseException, clue: Clue | None = None) -> Diagnosis | None:
        """Report what a hook meets: it will be printed or logged, with its note."""
        diagnosis = self.report(exc, clue)
        if diagnosis is not None and shown_before(exc, diagnosis):
            self.shown.add(diagnosis.id)
        return diagnosis

    def take_unseen(self) -> list[Diagnosis]:
        """The mistakes told since the last time that nothing has shown: the program caught them."""
        found = [each for each in self.registry.recent if each.id not in self.shown]
        self.shown.update(each.id for each in found)
        return found

    def announce(self, diagnosis: Diagnosis) -> None:
        """Tell the sinks and subscribers of what has no exception, and is shown elsewhere."""
        self._tell(diagnosis, shown=True)

    def report_hang(
        self, loop: Any, hang: Hang, sites: list[Site], inside: tuple[Any, ...] = ()
    ) -> None:
        """Tell why a loop stands still, from another thread.

        Args:
            loop: the loop.
            hang: what was seen.
            sites: the stack of the loop's thread, the innermost first.
            inside: what the library works on in which it waits, the innermost first.
        """
        diagnosis = self.judge(self.collector.collect_hang(loop, hang, sites, inside))
        if diagnosis is not None:
            self._tell(diagnosis, shown=False)

    def mark(self, exc: Exception, diagnosis: Diagnosis) -> None:
        """Write a diagnosis on an exception that is told for it."""
        self._write_on(exc, diagnosis, exc, rewrite=False)

    def report(self, exc: BaseException, clue: Clue | None = None) -> Diagnosis | None:
        """Diagnose an exception, write on it and tell the sinks. The exception stays the user's."""
        told = told_on(exc)
        if told is not None:
            self._write_on(exc, *told, rewrite=True)
            return told[0]
        clue = clue or Clue()
        known = self.repeats.find(exc, clue)
        if known is not None:
            return self._repeat(exc, clue, known)
        self.registry.look()
        gravest = self._gravest(exc, clue)
        if gravest is None or told_elsewhere(exc):
            return None
        case, diagnosis = gravest
        # Before anything is written or remembered: both change it.
        key = self.repeats.key_of(exc, clue) if is_lasting(case.evidence) else None
        if case.evidence.has("disconnected") and clue.live:
            self.registry.note_trouble(case.units, diagnosis)
        if case.evidence.has(*REFUSALS):
            self.registry.note_trouble(case.sessions, diagnosis)
        diagnosis = self._retire(diagnosis, case.evidence, clue)
        if clue.action != "none":
            diagnosis = replace(diagnosis, action=clue.action)
        elif not clue.reaches_program:
            notes = (*diagnosis.notes, "the pool's own traceback is folded here")
            diagnosis = replace(diagnosis, notes=notes)
        if clue.reaches_program:
            complaint = case.complaint
            own = not complaint.symptom.quoted
            shown = self._shown_alone(exc, clue) or complaint.exc
            self._write_on(clue.wrapper or exc, diagnosis, shown, rewrite=own)
            steps = steps_to(complaint.exc, exc)
            if key is not None and steps is not None and diagnosis.action == "none":
                note = self._story_of(diagnosis)
                refuses = refusing_primitive(exc, _get_running_loop()) if not clue.birth else None
                lock = weakref.ref(refuses) if refuses is not None else None
                self.repeats.remember(key, Told(diagnosis, note, steps, own, lock))
        self._tell(diagnosis, shown=clue.reaches_program)
        return diagnosis

    def _shown_alone(self, exc: BaseException, clue: Clue) -> BaseException | None:
        """What a finaliser failed with, if it complains itself: its text is all that is printed.

        The interpreter leaves out what an ignored exception came of, and its notes
        (Python/errors.c: write_unraisable_exc_file).
        """
        symptom = self.collector.read(exc) if clue.ignored else None
        return exc if symptom is not None and not symptom.quoted else None

    def _repeat(self, exc: BaseException, clue: Clue, told: Told) -> Diagnosis:
        """Write what is known on one more exception, and count it."""
        bearer, complaint = clue.wrapper or exc, complaint_in(exc, told.steps)
        self._write_on(bearer, told.diagnosis, complaint, rewrite=told.rewrite, note=told.note)
        self._tell(told.diagnosis, shown=True)
        return told.diagnosis

    def _retire(self, diagnosis: Diagnosis, evidence: Evidence, clue: Clue) -> Diagnosis:
        """Remember the first failure of an object, and let it be replaced at its next checkout."""
        birth = evidence.subject.birth if evidence.subject else None
        if birth is None or not evidence.left_unusable or diagnosis.certainty == "undetermined":
            return diagnosis
        self.registry.note_failure(birth, diagnosis)
        if clue.retire is None or not self.options.evict:
            return diagnosis
        clue.retire()
        return replace(diagnosis, action="evicted")

    def _write_on(
        self,
        exc: BaseException,
        diagnosis: Diagnosis,
        complaint: BaseException,
        *,
        rewrite: bool,
        note: str | None = None,
    ) -> None:
        rewrite = rewrite and self.options.rewrite_message
        annotate(
            exc,
            diagnosis,
            complaint,
            rewrite=rewrite,
            tell=lambda: note or self._story_of(diagnosis),
            on_read=self.shown.add,
        )

    def _story_of(self, diagnosis: Diagnosis) -> str:
        return plain.render(diagnosis, verbose=self.options.verbose, beside=True)

    def _tell(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Tell a mistake, the first time; witnesses hear of each occurrence."""
        for witness in self.witnesses:
            witness(diagnosis)
        for sink in self.sinks:
            if hasattr(sink, "tally"):
                _guard(sink, partial(sink.tally, diagnosis))
        if self.registry.count(diagnosis) > 1:
            return
        if not shown:
            self.shown.add(diagnosis.id)
        for sink in self.sinks:
            _guard(sink, partial(sink.send, diagnosis, shown=shown))
        for subscriber in list(self.subscribers):
            try:
                subscriber(diagnosis)
            except Exception:
                complain(f"subscriber {subscriber!r}")


def _guard(sink: Sink, call: Callable[[], object]) -> None:
    """Let a sink do something; its failure is ours to log, and nobody else's."""
    try:
        call()
    except Exception:
        complain(f"{type(sink).__module__}.{type(sink).__name__}")
