"""One exception's tree can hold several failures that have nothing to do with each other.

An incident is one complaint of a library with what belongs to it: its own frames, its own object,
and what came before it in the same place. The members of a group, an exception that was merely
being handled and another object's refusal are other incidents, and are judged alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from . import _frames
from ._frames import Site
from .exceptions import attributes_of, field_of, is_a, traceback_of, walk_with_parents
from .model import Symptom

FRAMES_SEEN = 400


@dataclass(frozen=True, slots=True)
class Complaint:
    """An exception that a probe read.

    Attributes:
        symptom: what it says.
        exc: the exception; never kept beyond one examination.
    """

    symptom: Symptom
    exc: BaseException


@dataclass(slots=True)
class Incident:
    """One failure.

    Attributes:
        complaints: what libraries said of it, the first raised first.
        translations: how many of them are one failure in several libraries' words; those after it
            came of that failure later, when the same object was used or tidied up again.
        sites: its frames from the innermost outwards: those of the failure itself, and those
            through which it passed on its way out.
        traced: how many of them come from tracebacks; what follows is the present stack.
        segment: how many of them ran in one task or thread; what follows only passed it on.
        before: cancellations that preceded it in the same place.
    """

    complaints: list[Complaint]
    translations: int = 1
    sites: list[Site] = field(default_factory=list)
    traced: int = 0
    segment: int = 0
    before: list[Complaint] = field(default_factory=list)

    @property
    def complaint(self) -> Complaint:
        """The one that is told: the last that a library made itself."""
        own = [each for each in self.complaints if not each.symptom.quoted]
        return (own or self.complaints)[-1]

    @property
    def symptoms(self) -> tuple[Symptom, ...]:
        """All that was said, the first first."""
        return tuple(each.symptom for each in (*self.before, *self.complaints))

    @property
    def library(self) -> list[Site]:
        """The frames of the library's call that failed, up to the program's line that made it.

        Whatever stands further out is not what the complaint is about: a callback that the program
        was given by a connection may touch something else.
        """
        own = self.sites[: self.segment]
        end = next((i for i, s in enumerate(own) if _frames.is_user(s.frame)), len(own))
        return own[:end]


Read = Callable[[BaseException], Symptom | None]
Objects = Callable[[list[Site]], set[int]]


def find_incidents(exc: BaseException, read: Read, objects: Objects) -> list[Incident]:
    """Divide an exception's tree into incidents, the first raised first.

    Args:
        exc: the exception.
        read: asks the probes what an exception complains of.
        objects: identities of the objects in the library's frames of a stack.
    """
    tree = walk_with_parents(exc)
    parents = {id(node): parent for node, parent in tree}
    found: list[Incident] = []
    cancelled: list[Complaint] = []
    for node, _ in tree:
        symptom = read(node)
        if symptom is None:
            continue
        complaint = Complaint(symptom, node)
        if symptom.kind == "cancelled":
            cancelled.append(complaint)
            continue
        earlier = next((i for i in reversed(found) if _continues(complaint, i, parents)), None)
        if earlier is not None and _translates(complaint, earlier):
            earlier.translations += earlier.translations == len(earlier.complaints)
            earlier.complaints.append(complaint)
        elif earlier is not None and _shares(complaint, earlier, objects):
            earlier.complaints.append(complaint)
        else:
            found.append(Incident([complaint]))
    for incident in found:
        _collect_sites(incident, parents)
        incident.before = [c for c in cancelled if _precedes(c, incident, parents, objects)]
    return found


# belonging together ------------------------------------------------------------------------


def _continues(
    later: Complaint, incident: Incident, parents: dict[int, BaseException | None]
) -> bool:
    """Whether a complaint has an incident's last one in its chain, and not as a group's member."""
    node: BaseException | None = incident.complaints[-1].exc
    while node is not None and node is not later.exc:
        parent = parents.get(id(node))
        if parent is None or is_a(parent, BaseExceptionGroup):
            return False
        node = parent
    return node is later.exc


def _translates(later: Complaint, incident: Incident) -> bool:
    """Whether a later complaint is the last one again, in another library's words."""
    last = incident.complaints[-1].exc
    before = _frames.walk_traceback(traceback_of(last))
    after = _frames.walk_traceback(traceback_of(later.exc))
    if not before or not after or later.symptom.quoted:
        return True
    if attributes_of(later.exc).get("orig") is last:
        return True
    if field_of(later.exc, "__cause__") is None:
        return False
    shared = {id(site.frame) for site in before}
    meeting = next((site for site in after if id(site.frame) in shared), None)
    return meeting is not None and not _frames.is_user(meeting.frame)


def _shares(later: Complaint, incident: Incident, objects: Objects) -> bool:
    """Whether two complaints are about one object."""
    before = _frames.walk_traceback(traceback_of(incident.complaints[-1].exc))
    after = _frames.walk_traceback(traceback_of(later.exc))
    return not objects(before).isdisjoint(objects(after))


def _precedes(
    cancellation: Complaint,
    incident: Incident,
    parents: dict[int, BaseException | None],
    objects: Objects,
) -> bool:
    """Whether a cancellation cut short what an incident then found."""
    for complaint in incident.complaints:
        earlier = Incident([cancellation])
        if _continues(complaint, earlier, parents) and (
            _translates(complaint, earlier) or _shares(complaint, earlier, objects)
        ):
            return True
    return False


# frames ------------------------------------------------------------------------------------

#: Where one thread, or a task of it, hands an exception to another.
_HANDING_OVER = {
    ("concurrent.futures._base", "__get_result"),
    ("concurrent.futures.thread", "run"),
    ("anyio._backends._asyncio", "run"),
    ("threading", "run"),
    ("threading", "_bootstrap_inner"),
}


def _collect_sites(incident: Incident, parents: dict[int, BaseException | None]) -> None:
    """Gather an incident's frames: its own, then those it passed, then the present stack's."""
    sites = incident.sites
    seen: set[tuple[int, int]] = set()

    def add(more: Iterable[Site]) -> None:
        for site in more:
            if (id(site.frame), site.line) not in seen and len(sites) < FRAMES_SEEN:
                seen.add((id(site.frame), site.line))
                sites.append(site)

    for complaint in incident.complaints[: incident.translations]:
        add(_frames.walk_traceback(traceback_of(complaint.exc)))
    outermost = incident.complaints[incident.translations - 1].exc
    node = parents.get(id(outermost))
    own: int | None = None
    while node is not None:
        passed = _frames.walk_traceback(traceback_of(node))
        known = {_identity(site) for site in sites}
        meeting = next((i for i, s in enumerate(passed) if _identity(s) in known), None)
        if meeting is None and passed and own is None and not is_a(node, BaseExceptionGroup):
            own = len(sites)  # raised elsewhere, from an exception that was kept
        # What was raised somewhere else while this was handled brings its own inner frames along.
        add(passed[meeting:] if meeting is not None else passed)
        outermost = node
        node = parents.get(id(node))
    incident.traced = len(sites)
    incident.segment = _segment(sites if own is None else sites[:own])
    known = {id(site.frame) for site in sites}
    live = list(_frames.walk_live())
    ends = [site for site in live if id(site.frame) not in known]
    sites.extend(ends[:FRAMES_SEEN])
    passed = _frames.walk_traceback(traceback_of(outermost))
    live_now = bool(passed) and any(site.frame is passed[-1].frame for site in live)
    if incident.segment == incident.traced and live_now:
        incident.segment = len(sites)


def _identity(site: Site) -> object:
    """What is the same in two tracebacks of one call.

    Cython makes a frame anew for each line of a traceback, and a coroutine's has a qualified name.
    """
    code = site.code
    if code.co_filename.endswith(_frames.COMPILED):
        return code.co_filename, code.co_name.rpartition(".")[2]
    return id(site.frame)


def _segment(sites: Sequence[Site]) -> int:
    for index, site in enumerate(sites):
        where = (_frames.module_of(site.frame), site.code.co_name)
        if where in _HANDING_OVER and index:
            return index
    return len(sites)
