"""The page that a browser gets in debug mode: a picture of the loops, the cure, both stacks.

It needs nothing from elsewhere, nor JavaScript: a script only copies the cure. All that others
wrote is escaped, and no text of an exception but the complaint's own is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources

from loopsentry.model import Diagnosis, LoopInfo, Place
from loopsentry.story import source_of

_LANE, _STEP, _LEFT, _RIGHT = 72, 104, 8, 632


def render(diagnosis: Diagnosis, *, nonce: str = "", frames: Iterable[Place] = ()) -> str:
    """Render the whole page.

    Args:
        diagnosis: what is told.
        nonce: that of the answer's Content-Security-Policy, for its style and its script.
        frames: the frames of the traceback, the innermost last.
    """
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    title = escape(f"{diagnosis.code}: {diagnosis.title}")
    body = "\n".join(_body(diagnosis, list(frames)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{title}</title>\n<style nonce="{escape(nonce)}">\n{style}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n"
        f'<script nonce="{escape(nonce)}">\n{script}</script>\n</body>\n</html>\n'
    )


def _asset(name: str) -> str:
    return resources.files("loopsentry.renderers").joinpath(name).read_text("utf-8")


def _body(diagnosis: Diagnosis, frames: list[Place]) -> Iterator[str]:
    kind = f"{diagnosis.severity} {diagnosis.code} · {diagnosis.cause} · {diagnosis.certainty}"
    yield f'<p class="kind">{escape(kind)}</p>\n<h1>{escape(diagnosis.title)}</h1>'
    if diagnosis.current_loop is not None and diagnosis.certainty != "undetermined":
        yield _picture(diagnosis)
    yield '<div class="sites">'
    yield from _sites(diagnosis)
    yield "</div>"
    notes = diagnosis.notes if diagnosis.certainty != "undetermined" else diagnosis.facts
    if notes:
        yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
    if diagnosis.fixes:
        yield "<h2>What to do</h2>\n<ol>"
        for number, fix in enumerate(diagnosis.fixes):
            yield f"<li><h3>{escape(fix.title)}</h3>\n<p>{escape(fix.reason)}</p>"
            if fix.snippet:
                label = escape(f"copy: {fix.title}")
                yield (
                    f'<div class="code"><pre tabindex="0" id="cure{number}">'
                    f'<code>{escape(fix.snippet.strip())}</code></pre>\n<button type="button"'
                    f' hidden data-of="cure{number}" aria-label="{label}">copy</button></div>'
                )
            yield "</li>"
        yield "</ol>"
    birth = diagnosis.object.birth if diagnosis.object is not None else None
    yield "<h2>How it came there</h2>"
    yield from _stack("where it was used", diagnosis.stack)
    yield from _stack("where it was opened", birth.stack if birth is not None else ())
    yield from _stack("the traceback, the last call last", frames)
    yield (
        f"<footer><p>More: <code>loopsentry explain {escape(diagnosis.code)}</code>. This page is"
        " shown because the application runs in debug mode.</p></footer>"
    )


def _sites(diagnosis: Diagnosis) -> Iterator[str]:
    birth = diagnosis.object.birth if diagnosis.object is not None else None
    other = diagnosis.other_operation
    label = diagnosis.object.label if diagnosis.object is not None else "the object"
    if other is not None:
        yield _site("first", "the operation under way", other.place, None)
    elif birth is not None or diagnosis.owner_loop is not None:
        place = birth.place if birth is not None else None
        yield _site("owner", f"{label} was opened", place, diagnosis.owner_loop)
    yield _site("here", "it was used", diagnosis.used_at, diagnosis.current_loop)


def _site(role: str, words: str, place: Place | None, loop: LoopInfo | None) -> str:
    where = f"<code>{escape(place.short)}</code>" if place is not None else "not recorded"
    source = source_of(place) if place is not None else ""
    line = f'<pre tabindex="0"><code>{escape(source)}</code></pre>' if source else ""
    on = f'<p class="loop">on {escape(_words_of(loop))}</p>' if loop is not None else ""
    return f'<section class="{role}"><h2>{escape(words)}</h2>\n<p>{where}</p>\n{line}{on}</section>'


def _words_of(loop: LoopInfo) -> str:
    place = loop.started_by
    starter = f", started by {place.short}" if place is not None else ", starter not recorded"
    return f"{loop.name}: {loop.runner or loop.kind}{starter}; {loop.state}"


def _stack(words: str, places: Iterable[Place]) -> Iterator[str]:
    lines = []
    for place in places:
        source = source_of(place)
        lines.append(f"{place.short}\n    {source}" if source else place.short)
    if lines:
        text = escape("\n".join(lines))
        yield (
            f"<details><summary>{escape(words)}</summary>\n"
            f'<pre tabindex="0"><code>{text}</code></pre></details>'
        )


# the picture ---------------------------------------------------------------------------------


def _picture(diagnosis: Diagnosis) -> str:
    """The loops as lanes, the object from where it was opened to where it was used."""
    owner, current = diagnosis.owner_loop, diagnosis.current_loop
    one = owner is None or current is None or owner.id == current.id
    lanes = [loop for loop in ((current,) if one else (owner, current)) if loop is not None]
    height = _STEP * len(lanes)
    told = _in_words(lanes)
    drawn = "".join(_lane(loop, number) for number, loop in enumerate(lanes))
    first, last = _LANE, _LANE + _STEP * (len(lanes) - 1)
    return (
        f'<figure><svg viewBox="0 0 640 {height}" role="img" aria-labelledby="drawn">'
        f'<title id="drawn">{escape(told)}</title>{drawn}'
        f'<path class="way" d="M 200 {first} C 320 {first}, 330 {last}, 450 {last}"/>'
        f"{_event(200, first, 'first' if one else 'opened', 'owner')}"
        f"{_event(450, last, 'used', 'here')}</svg></figure>"
    )


def _in_words(lanes: list[LoopInfo]) -> str:
    if len(lanes) == 1:
        return f"Two operations on one object, both on {lanes[0].name}"
    owner, current = lanes
    return f"Opened on {owner.name}, {owner.state}; used on {current.name}, {current.state}"


def _lane(loop: LoopInfo, number: int) -> str:
    y = _LANE + _STEP * number
    closed = loop.state == "closed"
    end = 330 if closed else _RIGHT
    what = f"{loop.name}: {loop.runner or loop.kind}"
    state = (
        f'<path class="end" d="M {end} {y - 9} V {y + 9}"/>'
        f'<text x="{end + 8}" y="{y + 5}">closed</text>'
        if closed
        else f'<path class="end" d="M {end - 8} {y - 7} L {end} {y} L {end - 8} {y + 7}"/>'
    )
    return (
        f'<text class="name" x="{_LEFT}" y="{y - 38}">{escape(what)}</text>'
        f'<path class="lane" d="M {_LEFT} {y} H {end}"/>{state}'
    )


def _event(x: int, y: int, word: str, role: str) -> str:
    return (
        f'<circle class="{role}" cx="{x}" cy="{y}" r="7"/>'
        f'<text x="{x}" y="{y - 12}" text-anchor="middle">{escape(word)}</text>'
    )
