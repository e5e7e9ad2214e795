"""Putting a diagnosis onto the user's exception, without making another one of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from .exceptions import (
    EXCEPTIONS_SEEN,
    arguments_of,
    attributes_of,
    field_of,
    is_a,
    members_of,
    message_of,
    notes_of,
    text_of,
    walk_tree,
)
from .model import Diagnosis
from .story import headline


class Marked(str):
    """A text that carries the diagnosis it tells; it pickles and copies as a plain `str`.

    `RuntimeError` takes no weak reference, so the mark travels in the exception's own text.
    """

    __slots__ = ("_on_read", "diagnosis")

    diagnosis: Diagnosis
    _on_read: Callable[[str], object] | None

    def __new__(
        cls,
        text: str,
        diagnosis: Diagnosis,
        on_read: Callable[[str], object] | None = None,
    ) -> Self:
        """Make the text, attach the diagnosis, and what is to hear of each time that it is read."""
        self = super().__new__(cls, text)
        self.diagnosis = diagnosis
        self._on_read = on_read
        return self

    def __str__(self) -> str:
        """The plain text: whatever prints notes asks for it so (Lib/traceback.py)."""
        self._note_read()
        return str.__str__(self)

    def translate(self, table: Any, /) -> str:
        """As of any text; rich asks for no other (rich/control.py: strip_control_codes)."""
        self._note_read()
        return str.translate(self, table)

    def _note_read(self) -> None:
        if self._on_read is not None:
            self._on_read(self.diagnosis.id)

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
    for node in _printed(exc):
        for note in notes_of(node):
            if type(note) is Marked and note.diagnosis.id == diagnosis.id:
                return True
    return False


def _printed(exc: BaseException) -> list[BaseException]:
    """What a traceback prints: an exception, its causes or contexts, and the members of groups."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [exc]
    while waiting and len(found) < EXCEPTIONS_SEEN:
        node = waiting.pop()
        if node is None or any(node is other for other in found):
            continue
        found.append(node)
        cause = field_of(node, "__cause__")
        hidden = cause is not None or field_of(node, "__suppress_context__")
        waiting.append(cause if hidden else field_of(node, "__context__"))
        waiting.extend(members_of(node))
    return found


def annotate(  # noqa: PLR0913 - one keyword for each matter
    exc: BaseException,
    diagnosis: Diagnosis,
    complaint: BaseException,
    *,
    rewrite: bool,
    tell: Callable[[], str],
    on_read: Callable[[str], object] | None = None,
) -> None:
    """Add the headline to the message, where that is safe, and the story as a note.

    The objects, their types and tracebacks stay; the original text stays inside the message. Only
    the complaint's own message gains a line, and that of SQLAlchemy's wrapper of it. A program
    that puts an exception of its own in their place says what it means to say, and reads what it
    wrote: that exception gets a note if its text repeats the complaint's, and otherwise nothing.

    Args:
        exc: the exception that surfaced.
        diagnosis: what is told.
        complaint: the exception in its tree with which a library complained.
        rewrite: whether messages may gain a line.
        tell: gives the story; not called where a note tells it already.
        on_read: hears the diagnosis' id when something reads the story, as what prints it does; not
            a method of ours, because exceptions outlive an installation and must not keep it.
    """
    bearer = exc if _stands_for(exc, complaint) else complaint
    if not is_a(exc, Exception) or not is_a(bearer, Exception):
        return
    if rewrite:
        for node in (complaint, exc):
            if node is complaint or _wraps(node, complaint):
                rewrite_message(node, diagnosis)
    if not shown_before(exc, diagnosis) and not shown_before(bearer, diagnosis):
        _add_note(bearer, Marked(tell(), diagnosis, on_read))


def _wraps(exc: BaseException, complaint: BaseException) -> bool:
    """Whether an exception is SQLAlchemy's wrapper of a driver's (sqlalchemy/exc.py)."""
    wrapped = attributes_of(exc).get("orig")
    return text_of(type(exc).__module__) == "sqlalchemy.exc" and wrapped is complaint


def _stands_for(exc: BaseException, complaint: BaseException) -> bool:
    """Whether an exception is the complaint, wraps it, or repeats its text."""
    if exc is complaint or _wraps(exc, complaint):
        return True
    said = message_of(complaint).partition(f" {_MARK}")[0]
    return bool(said) and said in message_of(exc)


_MARK = "[LS"


def paint(note: Any, *, verbose: bool = False) -> str | None:
    """A note in the colours of the terminal behind standard error; None if it is not ours."""
    if type(note) is not Marked:
        return None
    from rich.console import Console

    from .renderers import terminal

    console = Console(stderr=True, highlight=False)
    if console.legacy_windows or console.no_color or not console.is_terminal:
        return None
    return terminal.render_for(console, note.diagnosis, verbose=verbose, beside=True)


def _add_note(exc: BaseException, note: str) -> None:
    attributes = attributes_of(exc)
    if type(attributes.setdefault("__notes__", [])) is list:
        attributes["__notes__"].append(note)


def rewrite_message(exc: BaseException, diagnosis: Diagnosis) -> bool:
    """Add the headline to an exception's only argument; return whether that was possible.

    Only for one argument that is exactly a `str` and that the exception's own text contains:
    OSError, KeyError, exception groups and classes with a `__str__` of their own keep theirs.
    """
    args = arguments_of(exc)
    if len(args) != 1 or type(args[0]) is not str or not _shows(exc, args[0]):
        return False
    BaseException.__dict__["args"].__set__(
        exc, (Marked(f"{args[0]} {headline(diagnosis)}", diagnosis),)
    )
    if text_of(type(exc).__module__) == "sqlalchemy.exc" and exc.code in _MISLEADING:  # type: ignore[attr-defined]
        exc.code = None  # type: ignore[attr-defined]
    return True


#: SQLAlchemy's links for InterfaceError and OperationalError, which blame a dropped connection
#: (doc/build/errors.rst).
_MISLEADING = ("rvf5", "e3q8")


def _shows(exc: BaseException, text: str) -> bool:
    """Whether an exception's text is its argument's: for KeyError it is the `repr` of that."""
    if is_a(exc, LookupError, OSError, BaseExceptionGroup) or _speaks_for_itself(type(exc)):
        return False
    try:
        return text in str(exc)
    except Exception:
        return False


def _speaks_for_itself(kind: type[BaseException]) -> bool:
    """Whether a class, or one that it comes of, is not its library's and has its own `__str__`."""
    teller = next(each for each in kind.__mro__ if "__str__" in each.__dict__)
    package = text_of(teller.__module__).partition(".")[0]
    return package not in _TELLERS


#: Whose `__str__` shows the argument, with more around it: sqlalchemy/exc.py, asyncpg/exceptions.
_TELLERS = frozenset({"builtins", "sqlalchemy", "asyncpg", "loopsentry"})


def told_on(exc: Any) -> tuple[Diagnosis, BaseException] | None:
    """The diagnosis on an exception or anywhere in its tree, and the exception that bears it."""
    if not is_a(exc, BaseException):
        return None
    for node in reversed(walk_tree(exc)):
        diagnosis = marks_on(node)
        if diagnosis is not None:
            return diagnosis, node
    return None


def diagnosis_of(exc: Any) -> Diagnosis | None:
    """The diagnosis on an exception or anywhere in its tree."""
    told = told_on(exc)
    return told[0] if told is not None else None
