"""Other people's words, before they are repeated: bounded, and with every character visible."""

from __future__ import annotations

LONGEST = 500
#: How much of a text is looked at, from its beginning and from its end.
EXCERPT = 2_000


def excerpt(text: str) -> str:
    """A text that is short enough to be searched: its beginning and its end."""
    return text if len(text) <= 2 * EXCERPT else f"{text[:EXCERPT]} ... {text[-EXCERPT:]}"


def visible(text: str) -> str:
    """A text on one line in which every character can be seen; the others are escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def quote(text: str) -> str:
    """What a library said, fit to be repeated: on one line, at most `LONGEST` characters."""
    words = " ".join(excerpt(text).split())
    return visible(words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}...")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
