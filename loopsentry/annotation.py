"""Putting a diagnosis onto the user's exception, without making another one of it."""

from __future__ import annotations

from typing import Any, Self

from .exceptions import (
    arguments_of,
    attributes_of,
    field_of,
    is_a,
    notes_of,
    text_of,
    walk_tree,
)
from .model import Diagnosis
from .renderers import plain
from .story import headline


class Marked(str):
    """A text that carries the diagnosis it tells; it pickles and copies as a plain `str`.

    `RuntimeError` takes no weak reference, so the mark travels in the exception's own text.
    """

    __slots__ = ("diagnosis",)

    diagnosis: Diagnosis

    def __new__(cls, text: str, diagnosis: Diagnosis) -> Self:
        """Make the text and attach the diagnosis."""
        self = super().__new__(cls, text)
        self.diagnosis = diagnosis
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)

    def __copy__(self) -> str:
        return str.__str__(self)

    def __deepcopy__(self, _memo: object) -> str:
        return str.__str__(self)


def marks_on(exc: BaseException) -> Diagnosis | None:
    """The diagnosis that an exception itself already carries."""
    for text in (*arguments_of(exc)[:1], *notes_of(exc)):
        if type(text) is Marked:
            return text.diagnosis
    return None


def told_elsewhere(exc: BaseException) -> bool:
    """Whether an exception came out of another process, which had explained it already."""
    for node in walk_tree(exc):
        for note in notes_of(node):
            if type(note) is str and note.startswith(_HEADS):
                return True
    return False


_HEADS = ("error[LS", "warning[LS")


def shown_before(exc: BaseException, diagnosis: Diagnosis) -> bool:
    """Whether an exception that is printed with this one already tells the same story."""
    for node in walk_tree(exc):
        for note in notes_of(node):
            told = type(note) is Marked and note.diagnosis.id == diagnosis.id
            if told and _is_printed(exc, node):
                return True
    return False


def _is_printed(exc: BaseException, node: BaseException) -> bool:
    current: BaseException | None = exc
    for _ in range(100):
        if current is None or current is node:
            return current is node
        cause = field_of(current, "__cause__")
        if cause is not None:
            current = cause
        else:
            hidden = field_of(current, "__suppress_context__")
            current = None if hidden else field_of(current, "__context__")
    return False


def annotate(
    exc: BaseException, diagnosis: Diagnosis, *, rewrite: bool, verbose: bool = False
) -> None:
    """Add the headline to the message, where that is safe, and the story as a note.

    The object, its type and its traceback stay; the original text stays inside the message.
    """
    if not is_a(exc, Exception):
        return
    if rewrite:
        rewrite_message(exc, diagnosis)
    if not shown_before(exc, diagnosis):
        _add_note(exc, Marked(tell_plainly(diagnosis, verbose=verbose), diagnosis))


def tell_plainly(diagnosis: Diagnosis, *, verbose: bool = False) -> str:
    """The text of the note: the whole story in plain ASCII."""
    return plain.render(diagnosis, verbose=verbose)


def _add_note(exc: BaseException, note: str) -> None:
    attributes = attributes_of(exc)
    if type(attributes.setdefault("__notes__", [])) is list:
        attributes["__notes__"].append(note)


def rewrite_message(exc: BaseException, diagnosis: Diagnosis) -> bool:
    """Add one line to an exception's only argument; return whether that was possible.

    Only for one argument that is exactly a `str` and that the exception's own text contains:
    OSError, KeyError, exception groups and classes with a `__str__` of their own keep theirs.
    """
    args = arguments_of(exc)
    if len(args) != 1 or type(args[0]) is not str or not _shows(exc, args[0]):
        return False
    BaseException.__dict__["args"].__set__(
        exc, (Marked(f"{args[0]}\n{headline(diagnosis)}", diagnosis),)
    )
    if text_of(type(exc).__module__) == "sqlalchemy.exc":
        exc.code = None  # type: ignore[attr-defined]  # its link blames a dropped connection
    return True


def _shows(exc: BaseException, text: str) -> bool:
    try:
        return text in str(exc)
    except Exception:
        return False


def diagnosis_of(exc: Any) -> Diagnosis | None:
    """The diagnosis on an exception or anywhere in its tree."""
    if not is_a(exc, BaseException):
        return None
    for node in reversed(walk_tree(exc)):
        diagnosis = marks_on(node)
        if diagnosis is not None:
            return diagnosis
    return None
