"""The words of a diagnosis, line by line; renderers only decide how a line looks."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ._wording import visible
from .model import COLLECT, Diagnosis, EngineInfo, LoopInfo, Original, Place, Wait

Role = Literal[
    "headline", "here", "owner", "site", "source", "note", "help", "code", "more", "original"
]

INDENT = " " * 9
WIDTH = 80
#: As wide as messages become on terminals that have room.
WIDEST = 100
#: What stands for the objects that were left out of a library's text.
_CUT = " ... "
SOURCE = " " * 7 + "| "
FIXES_SHOWN = 2
WAITS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the message.

    Attributes:
        role: what it is.
        text: the whole line, with its label and indentation.
    """

    role: Role
    text: str


def tell(
    diagnosis: Diagnosis, *, verbose: bool = False, width: int = WIDTH, beside: bool = False
) -> list[Line]:
    """Tell a diagnosis: headline, two sites, notes, cures, code, original.

    Args:
        diagnosis: what is told.
        verbose: adds the user's frames around both sites, every fact, and all cures with reasons.
        width: columns to keep to, where no name or path is longer.
        beside: whether the reader has the exception itself right above, with its own words.
    """
    lines = [Line("headline", f"{diagnosis.severity}[{diagnosis.code}]: {diagnosis.title}")]
    if diagnosis.certainty == "undetermined":
        lines += [Line("note", f"  note: {fact}") for fact in diagnosis.facts]
    elif diagnosis.waits:
        lines += _waiting(diagnosis)
    elif _one_loop(diagnosis):
        lines += _sharing(diagnosis)
    else:
        lines += _crossing(diagnosis)
    if diagnosis.certainty != "undetermined":
        lines += _notes(diagnosis)
        lines += _more(diagnosis) if verbose else []
        lines += _helps(diagnosis, verbose=verbose)
    lines.append(Line("more", f"  more: loopsentry explain {diagnosis.code}"))
    original = diagnosis.original
    own = original is not None and original.type.startswith("loopsentry.")
    # What was shortened is more readable than what stands above, and what people search for.
    repeated = beside and original is not None and _CUT not in original.message
    if original is not None and original.message and not (own or repeated):
        lines.append(Line("original", f"  original: {_verbatim(original)}"))
    shown = (Line(line.role, visible(line.text)) for line in lines)
    return [piece for line in shown for piece in _fold(line, width)]


def _fold(line: Line, width: int) -> list[Line]:
    """Break a line that is too wide after a comma or a semicolon, never inside a name or path.

    What others wrote may break at any of its spaces.
    """
    if line.role == "source":
        return [Line(line.role, _cut(line.text, width))]
    if len(line.text) <= width or line.role in ("code", "more"):
        return [line]
    for pattern in (r"\S ",) if line.role == "original" else ("; ", ", "):
        found = re.finditer(pattern, line.text[: width + 1])
        breaks = [m.end() for m in found if m.start() > len(INDENT)]
        if breaks and line.text[breaks[-1] :].strip():
            rest = Line(line.role, INDENT + line.text[breaks[-1] :])
            return [Line(line.role, line.text[: breaks[-1]].rstrip()), *_fold(rest, width)]
    return [line]


def _cut(source: str, width: int) -> str:
    """A line of source or of marks, its end left out where it is too long."""
    if len(source) <= width:
        return source
    return f"{source[: width - 3].rstrip()}{'' if source.endswith('^') else '...'}"


def read(text: str) -> list[Line]:
    """The lines of a message that was told before, with what each of them is."""
    return [Line(_role_of(line), line) for line in text.splitlines()]


def _role_of(line: str) -> Role:
    return next((role for role, pattern in _ROLES.items() if pattern.match(line)), "note")


#: How the lines of each role begin, those that could be taken for another later.
_ROLES: dict[Role, re.Pattern[str]] = {
    "headline": re.compile(r"(error|warning)\[LS"),
    "here": re.compile(r"  here |  first |  waits "),
    "owner": re.compile("  owner "),
    "site": re.compile("  object |  holds "),
    "source": re.compile(r" {7}\| "),
    "help": re.compile("  help:"),
    "more": re.compile("  more:"),
    "original": re.compile("  original:|  first:"),
    "code": re.compile(" {12}"),
}


def refer_to(diagnosis: Diagnosis, told: str, width: int = WIDTH) -> list[Line]:
    """The line for a mistake that was told in full elsewhere."""
    used = diagnosis.used_at
    here = f"; here {used.path}:{used.line}" if used else ""
    words = f"{diagnosis.severity}[{diagnosis.code}]: the same as in {told}{here}"
    return _fold(Line("headline", visible(words)), width)


def headline(diagnosis: Diagnosis) -> str:
    """The one line that an exception's message gains: no path, no process id."""
    loops = [
        f"{loop.name}: {loop.runner or 'not recorded'}, {loop.state}"
        for loop in (diagnosis.owner_loop, diagnosis.current_loop)
        if loop is not None
    ]
    unique = list(dict.fromkeys(loops))
    tail = f" ({'; '.join(unique)})" if unique else ""
    return visible(f"[{diagnosis.code}] {diagnosis.title}{tail}")


def _one_loop(diagnosis: Diagnosis) -> bool:
    owner, current = diagnosis.owner_loop, diagnosis.current_loop
    if owner is None or current is None:
        return diagnosis.other_operation is not None or owner is None
    return owner.id == current.id


def _crossing(diagnosis: Diagnosis) -> list[Line]:
    lines = _site("here", diagnosis.used_at, _doing(diagnosis.framework, diagnosis.used_at))
    if diagnosis.operation == COLLECT and diagnosis.used_at is None:
        lines = [Line("here", "  here   wherever garbage happened to be collected")]
    if diagnosis.current_loop is not None:
        lines.append(_loop_line("here", diagnosis.current_loop, diagnosis.owner_loop))
    elif diagnosis.owner_loop is not None:
        where = f"no event loop runs in thread {diagnosis.nowhere}"
        unknown = "on another event loop, not recorded"
        lines.append(Line("here", f"{INDENT}{where if diagnosis.nowhere else unknown}"))
    lines += _owner(diagnosis)
    if diagnosis.owner_loop is not None:
        lines.append(_loop_line("owner", diagnosis.owner_loop, diagnosis.current_loop))
    return lines


def _owner(diagnosis: Diagnosis) -> list[Line]:
    subject, engine = diagnosis.object, _engine(diagnosis.engine)
    birth = subject.birth if subject else None
    if birth is not None and birth.place is not None:
        doing = _doing(birth.framework, birth.place)
        rest = "; ".join(filter(None, (doing, engine)))
        same = birth.place == diagnosis.used_at  # and its source stands above
        return _site("owner", birth.place, rest, words="opened at ", source=not same)
    label = subject.label if subject else "object"
    tail = f"; {engine}" if engine else ""
    if subject is not None and subject.primitive:
        return [Line("owner", f"  owner  {label}, bound to its loop by the first wait{tail}")]
    if subject is not None and subject.kind == "future":
        return [Line("owner", f"  owner  {label}{tail}")]
    return [Line("owner", f"  owner  not recorded: where this {label} was opened{tail}")]


def _sharing(diagnosis: Diagnosis) -> list[Line]:
    lines = _site("here", diagnosis.used_at, diagnosis.current_task or "")
    other = diagnosis.other_operation
    if other is not None:
        lines += _site("first", other.place, f"{other.task}, {other.state}".strip(", "))
    elif diagnosis.current_loop is not None:
        lines.append(_loop_line("here", diagnosis.current_loop, None))
    lines += _holding(diagnosis)
    if diagnosis.object is not None:
        birth = diagnosis.object.birth
        where = f", opened at {birth.place.short}" if birth and birth.place else ""
        lines.append(Line("site", f"  object {diagnosis.object.label}{where}"))
    return lines


def _waiting(diagnosis: Diagnosis) -> list[Line]:
    """Who waits for what, the blocked one first."""
    first, *others = diagnosis.waits
    lines = _site("here", first.place, _wait(first))
    if diagnosis.current_loop is not None:
        lines.append(_loop_line("here", diagnosis.current_loop, None))
    for other in others[:WAITS_SHOWN]:
        lines += _site("waits", other.place, _wait(other))
    if len(others) > WAITS_SHOWN:
        lines.append(Line("site", f"{INDENT}and {len(others) - WAITS_SHOWN} more"))
    return lines


def _holding(diagnosis: Diagnosis) -> list[Line]:
    """Who has the connections of a pool that has none left."""
    lines = []
    for holder in diagnosis.holders[:WAITS_SHOWN]:
        where = f" at {holder.place.short}" if holder.place else ""
        nobody = ", in hand of no task" if holder.searched else ""
        who = f", {holder.task}{where}" if holder.task else nobody
        opened = f"; opened at {holder.opened_at.short}" if holder.opened_at else ""
        lines.append(Line("site", f"  holds  {holder.label}{who}{opened}"))
    if len(diagnosis.holders) > WAITS_SHOWN:
        lines.append(Line("site", f"{INDENT}and {len(diagnosis.holders) - WAITS_SHOWN} more"))
    return lines


def _wait(wait: Wait) -> str:
    who = wait.task or f"thread {wait.thread}"
    return f"{who}; waits for {wait.awaits}, {wait.seconds:.1f} s"


def _site(
    label: Role | str, place: Place | None, rest: str, words: str = "", *, source: bool = True
) -> list[Line]:
    """Where something happened, what more is known of it, and the line of source it is."""
    where = f"{words}{place.short}" if place else "not recorded"
    role: Role = "owner" if label == "owner" else "here" if label == "here" else "site"
    text = f"  {label:<6} {where}"
    if rest:
        text += f"{'; ' if rest.startswith('engine') else ', '}{rest}"
    return [Line(role, text), *(_source(place) if source else ())]


def source_of(place: Place) -> str:
    """The source line of a place, "" if its file cannot be read."""
    return linecache.getline(place.file, place.line).strip().expandtabs(1)


def _source(place: Place | None) -> Iterator[Line]:
    """The source line of a place, if its file can be read, and a mark under the expression.

    As in tracebacks, nothing is marked where the expression is all of the line.
    """
    text = source_of(place) if place is not None else ""
    if place is None or not text:
        return
    line = linecache.getline(place.file, place.line)
    yield Line("source", f"{SOURCE}{text}")
    if place.columns is None or not line.isascii():
        return
    margin = len(line) - len(line.lstrip())
    start, end = (min(column - margin, len(text)) for column in place.columns)
    if 0 <= start < end and end - start < len(text):
        yield Line("source", f"{SOURCE}{' ' * start}{'^' * (end - start)}")


def _doing(framework: Mapping[str, str] | None, place: Place | None) -> str:
    """What of the framework was running, unless the place says so already."""
    framework = framework or {}
    for key in ("route", "task"):
        if key in framework:
            return framework[key]
    function = place.function if place else ""
    if "fixture" in framework:
        name = framework["fixture"]
        return "fixture" if name == function else f"fixture {name}"
    test = framework.get("test", "")
    name = test.rpartition("::")[2].partition("[")[0]
    return "" if name == function else test


def _engine(engine: EngineInfo | None) -> str:
    if engine is None:
        return ""
    if engine.variable is None:
        return f"engine {engine.url}"
    name = engine.variable
    if engine.created_at is not None:
        return f"engine `{name}`, {engine.created_at.path}:{engine.created_at.line}"
    file = Place(engine.module_file, 1, "").path if engine.module_file else ""
    return f"engine `{name}`, {file}" if file else f"engine `{name}`"


def _loop_line(role: Role, loop: LoopInfo, other: LoopInfo | None) -> Line:
    """`loop B, asyncio.run in serve(), main.py:12, run 2, running`."""
    parts = [f"{loop.name}, {loop.runner or loop.kind}"]
    if loop.started_by is not None:
        parts[0] += f" in {loop.started_by.call}"
        parts.append(f"{loop.started_by.path}:{loop.started_by.line}")
        if other is not None and other.started_by == loop.started_by and loop.run:
            parts.append(f"run {loop.run}")
    elif "notebook" not in loop.contexts:  # that starts its loop itself
        parts.append("starter not recorded")
    if loop.scope:
        parts.append(f"scope {loop.scope}")
    if other is not None and other.thread and loop.thread and other.thread != loop.thread:
        parts.append(f"thread {loop.thread}")
    if other is not None and other.pid != loop.pid:
        parts.append(f"pid {loop.pid}")
    parts.append(loop.state)
    return Line(role, INDENT + ", ".join(parts))


def _notes(diagnosis: Diagnosis) -> list[Line]:
    first, *rest = diagnosis.notes or ("",)
    notes = [f"{diagnosis.certainty}; {first}" if first else diagnosis.certainty, *rest]
    if diagnosis.first_failure is not None:
        failure = diagnosis.first_failure
        where = f" at {failure.place.path}:{failure.place.line}" if failure.place else ""
        code = f" ({failure.code})" if failure.code else ""
        notes.append(f"left unusable at {failure.time:%H:%M:%S} UTC{where}{code}")
    lines = [Line("note", f"  note: {note}") for note in notes]
    if diagnosis.first_failure is not None and diagnosis.first_failure.original is not None:
        lines.append(Line("original", f"  first: {_verbatim(diagnosis.first_failure.original)}"))
    return lines


def _verbatim(original: Original) -> str:
    short = original.type.rpartition(".")[2]
    return f"{short}: {' '.join(original.message.split())}"


def _more(diagnosis: Diagnosis) -> list[Line]:
    birth = diagnosis.object.birth if diagnosis.object else None
    lines = [
        Line("note", f"  note: another failure beside this: {code}, {sureness}: {title}")
        for code, title, sureness in diagnosis.others
    ]
    lines += [Line("note", f"  note: {fact}") for fact in diagnosis.facts]
    lines += [Line("here", f"  here   {place.short}") for place in diagnosis.stack]
    lines += [Line("owner", f"  owner  {place.short}") for place in (birth.stack if birth else ())]
    return lines


def _helps(diagnosis: Diagnosis, *, verbose: bool) -> list[Line]:
    lines = []
    for fix in diagnosis.fixes if verbose else diagnosis.fixes[:FIXES_SHOWN]:
        lines.append(Line("help", f"  help: {fix.title}"))
        if verbose:
            lines.append(Line("help", f"{INDENT}{fix.reason}"))
        lines += [Line("code", f"{' ' * 12}{code}".rstrip()) for code in fix.snippet.splitlines()]
    return lines
