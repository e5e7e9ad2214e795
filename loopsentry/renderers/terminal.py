"""The message for a terminal, with rich: the plain lines, coloured, with clickable places."""

from __future__ import annotations

from rich.text import Text

from loopsentry.model import Diagnosis, Place
from loopsentry.story import Line, tell

_STYLES = {
    "headline": "bold",
    "here": "cyan",
    "owner": "magenta",
    "site": "cyan",
    "note": "default",
    "help": "green",
    "code": "bold green",
    "more": "dim",
    "original": "dim",
}


def render(diagnosis: Diagnosis, *, verbose: bool = False) -> Text:
    """Render the message; colour only adds, the words are those of the plain form."""
    text = Text(no_wrap=True, overflow="ignore")
    for number, line in enumerate(tell(diagnosis, verbose=verbose)):
        if number:
            text.append("\n")
        text.append_text(_line(line, diagnosis))
    return text


def _line(line: Line, diagnosis: Diagnosis) -> Text:
    if line.role == "headline":
        label, _, rest = line.text.partition(":")
        colour = "bold red" if diagnosis.severity == "error" else "bold yellow"
        return Text.assemble((label, colour), (":" + rest, "bold"))
    text = Text(line.text, style=_STYLES[line.role])
    for place in (diagnosis.used_at, _birthplace(diagnosis)):
        if place is not None and not place.file.startswith("<"):
            where = f"{place.path}:{place.line}"
            start = line.text.find(where)
            if start >= 0:
                text.stylize(f"link file://{place.file}", start, start + len(where))
    return text


def _birthplace(diagnosis: Diagnosis) -> Place | None:
    birth = diagnosis.object.birth if diagnosis.object else None
    return birth.place if birth else None
