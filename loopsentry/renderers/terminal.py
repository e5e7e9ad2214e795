"""The message for a terminal, with rich: the plain lines, coloured, with clickable places."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.text import Text

from loopsentry.model import Diagnosis, Place
from loopsentry.story import WIDEST, WIDTH, Line, Role, read, tell

_STYLES: dict[Role, str] = {
    "headline": "bold",
    "here": "cyan",
    "owner": "magenta",
    "site": "cyan",
    "source": "default",
    "note": "default",
    "help": "green",
    "code": "bold green",
    "more": "dim",
    "original": "dim",
}
NARROWEST = 60


def render(
    diagnosis: Diagnosis, *, verbose: bool = False, width: int = WIDTH, beside: bool = False
) -> Text:
    """Render the message; colour only adds, the words are those of the plain form."""
    lines = tell(diagnosis, verbose=verbose, width=width, beside=beside)
    places = (diagnosis.used_at, _birthplace(diagnosis))
    return _join([_linked(_line(line), places) for line in lines])


def render_for(console: Console, diagnosis: Diagnosis, *, verbose: bool, beside: bool) -> str:
    """Render the message for a console, as wide as it is, up to 100 columns, with its codes."""
    width = max(NARROWEST, min(console.width, WIDEST))
    with console.capture() as captured:
        text = render(diagnosis, verbose=verbose, width=width, beside=beside)
        console.print(text, soft_wrap=True)
    return captured.get().rstrip("\n")


def colour(plain: str) -> str:
    """Put a plain message, or several, in the colours that every terminal has."""
    shown = io.StringIO()
    console = Console(
        file=shown, force_terminal=True, color_system="standard", highlight=False, no_color=False
    )
    console.print(_join([_line(line) for line in read(plain)]), soft_wrap=True)
    return shown.getvalue().rstrip("\n")


def _join(lines: list[Text]) -> Text:
    text = Text("\n").join(lines)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def _line(line: Line) -> Text:
    if line.role == "headline":
        label, colon, rest = line.text.partition(":")
        tone = "bold yellow" if label.startswith("warning") else "bold red"
        return Text.assemble((label, tone), (colon + rest, "bold"))
    if line.role == "source" and not line.text.strip(" |^"):
        return Text(line.text, style="bold red")
    return Text(line.text, style=_STYLES[line.role])


def _linked(text: Text, places: tuple[Place | None, ...]) -> Text:
    for place in places:
        if place is not None and not place.file.startswith("<"):
            where = re.escape(f"{place.path}:{place.line}") + r"\b"
            text.highlight_regex(where, f"link file://{place.file}")
    return text


def _birthplace(diagnosis: Diagnosis) -> Place | None:
    birth = diagnosis.object.birth if diagnosis.object else None
    return birth.place if birth else None
