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
    """Every code names the cause that the contract's table gives it, and none occurs twice."""
    found = [(entry.CODE, entry.CAUSE) for entry in catalog.load("causes")]
    assert sorted(found) == sorted(CAUSES.items())


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
    """Every context bears a name of the contract, and no two share a name or a rank."""
    contexts = catalog.load("contexts")
    assert {entry.NAME for entry in contexts} <= CONTEXTS
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
    """Every fix bears a name of the contract; what its header says is a law of the fixes' tests."""
    assert {fix.id for fix in catalog.load_fixes()} <= FIXES


@pytest.mark.parametrize("topic", [*CAUSES, *CAUSES.values()])
def test_explain_tells_of_a_cause(topic: str) -> None:
    """`loopsentry explain` knows every cause by its code and by its name."""
    result = CliRunner().invoke(cli, ["explain", topic])
    assert result.exit_code == 0
    code = next(code for code, name in CAUSES.items() if topic in (code, name))
    assert result.output.startswith(f"# {code} {CAUSES[code]}\n")


def test_explain_tells_of_each_fix() -> None:
    """`loopsentry explain` knows every fix by its name."""
    for fix in catalog.load_fixes():
        result = CliRunner().invoke(cli, ["explain", fix.id])
        assert result.exit_code == 0
        assert fix.title in result.output


def test_explain_takes_a_code_in_small_letters() -> None:
    """`loopsentry explain ls101` is `loopsentry explain LS101`."""
    shown = [CliRunner().invoke(cli, ["explain", topic]).output for topic in ("ls101", "LS101")]
    assert shown[0] == shown[1]


def test_explain_lists_everything() -> None:
    """`loopsentry explain` without a topic lists each code and each fix."""
    output = CliRunner().invoke(cli, ["explain"]).output
    for name in [*CAUSES, *CAUSES.values(), *(fix.id for fix in catalog.load_fixes())]:
        assert name in output


def test_explain_lists_what_there_is_when_asked_for_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An unknown topic ends with status 2 and the list of the valid ones."""
    with pytest.raises(SystemExit) as ended:
        main(["explain", "LS999"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    for name in ("LS999", *CAUSES, *(fix.id for fix in catalog.load_fixes())):
        assert name in printed.err
