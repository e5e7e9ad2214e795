"""The laws about all entries on the shelves, and `loopsentry explain` over them."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from contract import CAUSES, CONTEXTS, FIXES

from loopsentry import catalog
from loopsentry.cli import cli, main
from loopsentry.explanation import explain
from loopsentry.registry import Registry

LIBRARIES = re.compile(
    r"sqlalchemy|asyncpg|psycopg|aiosqlite|uvloop|starlette|uvicorn|fastapi|celery|pytest|anyio",
    re.IGNORECASE,
)
TITLE_LENGTH = 80


def entries(shelf: str) -> list[Any]:
    """Give each entry of a shelf with the name of its file as the test's id."""
    return [
        pytest.param(entry, id=entry.__name__.rpartition(".")[2]) for entry in catalog.load(shelf)
    ]


def test_the_causes_are_those_of_the_contract() -> None:
    """Each published code names the cause that it always named; none occurs twice."""
    found = [(entry.CODE, entry.CAUSE) for entry in catalog.load("causes")]
    assert CAUSES.items() <= dict(found).items()
    for words in zip(*found, strict=True):
        assert max(Counter(words).values()) == 1


@pytest.mark.parametrize("cause", entries("causes"))
def test_a_cause_tells_its_title_and_its_explanation(cause: ModuleType) -> None:
    """A cause's docstring is a headline without a full stop, and an explanation below it."""
    title, _, explanation = (cause.__doc__ or "").strip().partition("\n")
    assert title
    assert title[-1] not in ".!:"
    assert len(title) <= TITLE_LENGTH
    assert title[0].islower()
    assert explanation.startswith("\n")
    assert len(explanation.split()) > 20


@pytest.mark.parametrize("cause", entries("causes"))
def test_a_cause_judges_in_no_librarys_words(cause: ModuleType) -> None:
    """The code of a cause names no library; its explanation to the reader may."""
    tree = ast.parse(Path(inspect.getfile(cause)).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node):
            node.body.pop(0)
    assert not LIBRARIES.search(ast.unparse(tree))


def test_the_contexts_are_those_of_the_contract() -> None:
    """Each published context is still there, and no two share a name or a rank."""
    contexts = catalog.load("contexts")
    assert {"unknown", *(entry.NAME for entry in contexts)} >= CONTEXTS
    for attribute in ("NAME", "RANK"):
        counts = Counter(getattr(entry, attribute) for entry in contexts)
        assert max(counts.values()) == 1


@pytest.mark.parametrize("context", entries("contexts"))
def test_a_context_recognises_nothing_in_an_empty_stack(context: ModuleType) -> None:
    """A context that is given no frame recognises nothing."""
    assert context.recognise(()) is None


@pytest.mark.parametrize(
    ("shelf", "functions"),
    [
        ("hooks", ("attach",)),
        ("sinks", ("open_sink",)),
        ("renderers", ("render",)),
        ("causes", ("match",)),
        ("contexts", ("recognise",)),
    ],
)
def test_an_entry_has_the_functions_of_its_shelf(shelf: str, functions: tuple[str, ...]) -> None:
    """Every entry offers what its shelf promises, and a docstring says what it is."""
    loaded = catalog.load(shelf)
    assert loaded
    for entry in loaded:
        assert entry.__doc__
        for function in functions:
            assert callable(getattr(entry, function)), f"{entry.__name__}.{function}"


@pytest.mark.parametrize("entry", [*entries("probes"), *entries("hooks")])
def test_what_an_entry_attaches_it_can_undo(entry: ModuleType) -> None:
    """Attaching returns what undoes it, which may be called twice; no entry keeps a list of it."""
    if hasattr(entry, "attach"):
        undo = entry.attach(lambda *_: None, Registry())
        undo()
        undo()
    kept = [name for name, value in vars(entry).items() if type(value) in (list, dict, set)]
    assert [name for name in kept if not name.startswith("__")] == []


@pytest.mark.parametrize("probe", entries("probes"))
def test_a_probe_names_its_librarys_packages(probe: ModuleType) -> None:
    """Every probe says which packages are machinery, and never the user's own frames."""
    assert probe.PACKAGES


def test_the_fixes_are_those_of_the_contract() -> None:
    """Each published fix is still there; what its header says is a law of the fixes' tests."""
    assert {fix.id for fix in catalog.load_fixes()} >= FIXES


NAMES = {cause.code: cause.name for cause in catalog.load_causes()}


@pytest.mark.parametrize("topic", [*NAMES, *NAMES.values()])
def test_explain_tells_of_a_cause(topic: str) -> None:
    """`loopsentry explain` knows every cause by its code and by its name."""
    result = CliRunner().invoke(cli, ["explain", topic])
    assert result.exit_code == 0
    code = next(code for code, name in NAMES.items() if topic in (code, name))
    assert result.output.partition("\n")[0].strip() == f"{code} {NAMES[code]}"


def test_explain_tells_of_each_fix() -> None:
    """`loopsentry explain` knows every fix by its name."""
    for fix in catalog.load_fixes():
        result = CliRunner().invoke(cli, ["explain", fix.id])
        assert result.exit_code == 0
        assert fix.title in " ".join(result.output.split())


def test_explain_takes_a_code_in_small_letters() -> None:
    """`loopsentry explain ls101` is `loopsentry explain LS101`."""
    shown = [CliRunner().invoke(cli, ["explain", topic]).output for topic in ("ls101", "LS101")]
    assert shown[0] == shown[1]


def test_explain_lists_everything() -> None:
    """`loopsentry explain` without a topic lists each code and each fix."""
    output = CliRunner().invoke(cli, ["explain"]).output
    for name in [*NAMES, *NAMES.values(), *(fix.id for fix in catalog.load_fixes())]:
        assert name in output


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("LS1011", "LS101"),
        ("fresh-sesion", "fresh-session"),
        ("closed-lop", "closed-loop"),
        ("LSA999", "LSA"),
        ("nothing like it at all", None),
    ],
)
def test_explain_says_what_comes_nearest(
    capsys: pytest.CaptureFixture[str], asked: str, meant: str | None
) -> None:
    """An unknown topic ends with status 2, the nearest name, and where the list is."""
    with pytest.raises(SystemExit) as ended:
        main(["explain", asked])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert asked in printed.err
    assert "lists all codes and fixes" in printed.err
    assert ("did you mean" in printed.err) is (meant is not None)
    assert (meant or "") in printed.err


PASTED = {
    "Task <Task pending name='Task-9' coro=<f() running>> got Future <Future pending> attached to a"
    " different loop": "LS101",
    "asyncpg.exceptions._base.InterfaceError: cannot perform operation: another operation is in"
    " progress": "LS201",
    "RuntimeError: Event loop is closed": "LS101",
    "sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called; can't call await_only()"
    " here. Was IO attempted in an unexpected place?": "LS401",
    "The garbage collector is trying to clean up non-checked-in connection <AdaptedConnection>,"
    " which will be terminated.": "LS103",
    "RuntimeWarning: coroutine 'main' was never awaited": "LS402",
    "ConnectionDoesNotExistError: connection was closed in the middle\n  of operation": "LS501",
    "RuntimeError: unable to perform operation on <TCPTransport closed=True reading=False"
    " 0x55>; the handler is closed": "LS101",
    "RuntimeError: asyncio.run() cannot be called from a running event loop": "LS402",
    "psycopg.OperationalError: the connection is closed": "LS501",
    "readuntil() called while another coroutine is already waiting for incoming data": "LS201",
}


@pytest.mark.parametrize("pasted", PASTED)
def test_explain_takes_the_text_of_an_error(pasted: str) -> None:
    """A pasted text leads to what it can mean, the likeliest first, with its cures in sight."""
    result = CliRunner().invoke(cli, ["explain", pasted])
    assert result.exit_code == 0
    shown = result.output.splitlines()
    first = next(line for line in shown if line.startswith("LS"))
    assert first.startswith(PASTED[pasted])
    assert any(" \u2022 " in line for line in shown[:20])


def test_each_known_text_is_recognised_and_means_something() -> None:
    """Each text fits itself, no two have one name, and what each means is on the shelf."""
    texts = catalog.load_texts()
    causes = {cause.name for cause in catalog.load_causes()}
    assert len({text.name for text in texts}) == len(texts)
    for text in texts:
        assert text.fits(text.text)
        assert text.means
        assert {name for name, _ in text.means} <= causes
        assert all(any(name in fix.cures for fix in catalog.load_fixes()) for name, _ in text.means)


def test_explain_opens_with_a_program_for_everyone() -> None:
    """What a crossing is first shown with is no test suite: a wizard, then the server."""
    shown = explain("LS101")
    program = shown.partition("```python\n")[2]
    assert "pytest" not in program.partition("```")[0]


def test_plain_output_keeps_programs_as_they_are() -> None:
    """Without a terminal the text has 80 columns, no markup, and programs that can be copied."""
    shown = CliRunner().invoke(cli, ["explain", "LS101"]).output
    program = explain("LS101").partition("```python\n")[2].partition("```")[0]
    assert program in shown
    prose = shown.replace(program, "")
    assert "**" not in prose
    assert "# LS" not in prose
    assert all(len(line) <= 80 for line in shown.partition(program)[0].splitlines())
