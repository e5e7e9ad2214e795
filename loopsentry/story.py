"""The words of a diagnosis, line by line; renderers only decide how a line looks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ._wording import visible
from .model import Diagnosis, EngineInfo, LoopInfo, Original, Place

Role = Literal["headline", "here", "owner", "site", "note", "help", "code", "more", "original"]

INDENT = " " * 9
WIDTH = 80
FIXES_SHOWN = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the message.

    Attributes:
        role: what it is.
        text: the whole line, with its label and indentation.
    """

    role: Role
    text: str


def tell(diagnosis: Diagnosis, *, verbose: bool = False) -> list[Line]:
    """Tell a diagnosis: headline, two sites, notes, cures, code, original.

    Verbose adds the user's frames around both sites, every fact, and all cures with their reasons.
    """
    lines = [Line("headline", f"{diagnosis.severity}[{diagnosis.code}]: {diagnosis.title}")]
    if diagnosis.certainty == "undetermined":
        lines += [Line("note", f"  note: {fact}") for fact in diagnosis.facts]
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
    if original is not None and original.message and not original.type.startswith("loopsentry."):
        lines.append(Line("original", f"  original: {_verbatim(original)}"))
    shown = (Line(line.role, visible(line.text)) for line in lines)
    return [piece for line in shown for piece in _fold(line)]


def _fold(line: Line) -> list[Line]:
    """Break a line that is too wide after a comma or a semicolon, never inside a name or path."""
    if len(line.text) <= WIDTH or line.role in ("code", "original", "more"):
        return [line]
    breaks = [m.end() for m in re.finditer(r"[,;] ", line.text[: WIDTH + 1])]
    if not breaks or not line.text[breaks[-1] :].strip():
        return [line]
    rest = Line(line.role, INDENT + line.text[breaks[-1] :])
    return [Line(line.role, line.text[: breaks[-1]].rstrip()), *_fold(rest)]


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
        return _site("owner", birth.place, "; ".join(filter(None, (doing, engine))))
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
    if diagnosis.object is not None:
        birth = diagnosis.object.birth
        where = f", opened at {birth.place.short}" if birth and birth.place else ""
        lines.append(Line("site", f"  object {diagnosis.object.label}{where}"))
    return lines


def _site(label: Role | str, place: Place | None, rest: str) -> list[Line]:
    where = place.short if place else "not recorded"
    role: Role = "owner" if label == "owner" else "here" if label == "here" else "site"
    text = f"  {label:<6} {where}"
    if not rest:
        return [Line(role, text)]
    joiner = "; " if rest.startswith("engine") else ", "
    return [Line(role, f"{text}{joiner}{rest}")]


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
    else:
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
