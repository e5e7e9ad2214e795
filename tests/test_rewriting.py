"""Only the exception that complains is rewritten; what the program says in its place is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import loopsentry
from loopsentry import installation
from loopsentry.renderers import plain


class OwnError(Exception):
    """A program's own exception."""


class OwnTextError(Exception):
    """A program's own exception, which says more than its argument."""

    def __str__(self) -> str:
        return f"E42: {self.args[0]}"


OWN: dict[str, Callable[[str], Exception]] = {
    "KeyError": KeyError,
    "IndexError": IndexError,
    "LookupError": LookupError,
    "AttributeError": AttributeError,
    "OSError": OSError,
    "PermissionError": lambda words: PermissionError(13, words),
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
    "OwnError": OwnError,
    "OwnTextError": OwnTextError,
    "ExceptionGroup": lambda words: ExceptionGroup(words, [OwnError("inner")]),
    "UnicodeDecodeError": lambda words: UnicodeDecodeError("utf-8", b"x", 0, 1, words),
}
WAYS = ("while handling", "from it", "from None", "afterwards")


def fail(exc: Exception, replacement: Exception, way: str) -> None:
    """Raise one exception in the place of another, in one of the ways that Python has."""
    try:
        raise exc  # noqa: TRY301 - the ways to replace it are what is tried
    except Exception as caught:
        if way == "while handling":
            raise replacement  # noqa: B904 - the way that is tried
        if way == "from it":
            raise replacement from caught
        if way == "from None":
            raise replacement from None
    raise replacement


async def use(engine: AsyncEngine) -> None:
    """Run one statement."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


@pytest.fixture
def crossing(url: str) -> Iterator[Exception]:
    """Give the diagnosed failure of a connection that crossed loops, as the program catches it."""
    loopsentry.install(evict=True)  # nothing of it may be left to collect in another test
    engine = create_async_engine(url)
    asyncio.run(use(engine))
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(use(engine))
    assert "[LS101]" in str(caught.value)
    yield caught.value
    asyncio.run(engine.dispose())


def report(exc: BaseException) -> None:
    """Let a hook meet an exception that surfaces."""
    installed = installation.current()
    assert installed is not None
    installed.examiner.report(exc)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OWN)
def test_an_exception_of_the_programs_own_reaches_it_as_it_was(
    crossing: Exception, name: str, way: str
) -> None:
    """Whatever a program raises in place of a diagnosed failure keeps its arguments and text."""
    own = OWN[name]("sku-1")
    before = (own.args, str(own), dict(vars(own)))
    caught: list[Exception] = []

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        fail(crossing, own, way)

    async def call() -> None:
        try:
            await loopsentry.LoopSentryMiddleware(application)({"type": "http"}, None, None)  # type: ignore[arg-type]
        except Exception as exc:
            caught.append(exc)

    asyncio.run(call())
    assert caught == [own]
    assert (own.args, str(own), dict(vars(own))) == before


@pytest.mark.parametrize("way", WAYS[:3])
def test_one_that_repeats_the_text_gets_the_note(crossing: Exception, way: str) -> None:
    """An own exception that quotes the failure gets the story, where nothing else tells it."""
    own = OwnError(f"could not read: {crossing}")
    before = own.args
    with pytest.raises(OwnError):
        fail(crossing, own, way)
    report(own)
    assert own.args is before
    notes = getattr(own, "__notes__", [])
    assert len(notes) == (1 if way == "from None" else 0)
    assert all("error[LS101]" in note for note in notes)


def test_a_group_tells_the_story_on_the_member_that_complains() -> None:
    """A group's own text stays; its member gains the line and the note, the others nothing."""
    loopsentry.install()
    complaint, other = RuntimeError("Event loop is closed"), KeyError("k")
    group = ExceptionGroup("both", [other, complaint])
    report(group)
    assert group.args == ("both", [other, complaint])
    assert not hasattr(group, "__notes__")
    assert not hasattr(other, "__notes__")
    assert other.args == ("k",)
    assert "[LS000]" in str(complaint)
    assert len(complaint.__notes__) == 1


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_words_of_a_library_in_an_own_exception_are_not_rewritten(
    kind: type[Exception],
) -> None:
    """A program that raises asyncio's words itself finds its message as it wrote it."""
    loopsentry.install()
    message = "user S3cr3t cannot lock: <Lock> is bound to a different event loop"
    with pytest.raises(kind) as caught:
        raise kind(message)
    report(caught.value)
    assert caught.value.args == (message,)
    diagnosis = loopsentry.diagnose(caught.value)
    assert diagnosis.original is not None
    assert "S3cr3t" not in diagnosis.original.message


def test_a_message_of_fifty_megabytes_makes_no_such_note() -> None:
    """A complaint may be of any length; what is repeated of it is short."""
    loopsentry.install()
    exc = RuntimeError("x" * 50_000_000 + " Event loop is closed")
    report(exc)
    assert len(exc.__notes__[0]) < 3_000


@pytest.mark.parametrize("odd", ["\x1b[31mred", "\ud800", "\u2028", "\x85", "\x00", "\u202e"])
def test_odd_characters_are_escaped(odd: str) -> None:
    """Control characters, surrogates and separators of a text are shown, never acted upon."""
    exc = RuntimeError(f"Event loop is closed {odd} here")
    diagnosis = loopsentry.diagnose(exc)
    assert diagnosis.original is not None
    assert diagnosis.original.message.isprintable()
    for line in plain.render(diagnosis, verbose=True).splitlines():
        assert line.isprintable()


# generated --------------------------------------------------------------------------------

steps = st.lists(st.tuples(st.sampled_from(sorted(OWN)), st.sampled_from(WAYS[:3])), max_size=5)


def complained() -> Exception:
    """What a closed event loop says itself."""
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        loop.call_soon(print)
    return caught.value


@given(steps)
def test_no_chain_of_replacements_is_rewritten(chain: list[tuple[str, str]]) -> None:
    """However often a program replaces a failure, only the library's exception is rewritten."""
    loopsentry.uninstall()
    loopsentry.install()
    complaint = complained()
    current, owns = complaint, []
    for number, (name, way) in enumerate(chain):
        own = OWN[name](f"own {number}")
        owns.append((own, own.args, str(own)))
        with pytest.raises(type(own)):
            fail(current, own, way)
        current = own
        report(current)
    report(current)
    report(current)
    assert "[LS103]" in str(complaint)
    for own, args, shown in owns:
        assert (own.args, str(own)) == (args, shown)
        assert not hasattr(own, "__notes__")


@pytest.mark.parametrize("outer", ["KeyError", "OwnError"])
@pytest.mark.parametrize("inner", ["KeyError", "OSError"])
def test_a_wrapper_of_a_wrapper_stays(crossing: Exception, outer: str, inner: str) -> None:
    """Two layers that translate a failure both keep what they said."""
    first, second = OWN[inner]("inner"), OWN[outer]("outer")
    with pytest.raises(type(first)):
        fail(crossing, first, "from it")
    with pytest.raises(type(second)):
        fail(first, second, "from None")
    report(second)
    assert (first.args, second.args) == (("inner",), ("outer",))
