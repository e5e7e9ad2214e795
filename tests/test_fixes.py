"""Every cure on the shelf: its header, its failing program and its cured one."""

from __future__ import annotations

import re
from string import Template
from typing import TYPE_CHECKING

import contract
import pytest

from loopsentry import catalog
from loopsentry.explanation import explain

if TYPE_CHECKING:
    from conftest import RunProgram

    from loopsentry.diagnosis import Example, Remedy

FIXES = catalog.load_fixes()
CONTEXTS = {entry.NAME for entry in catalog.load("contexts")} | {"unknown"}
CODES = {cause.name: cause.code for cause in catalog.load_causes()}

#: How soon a loop that stands still is looked at.
WATCHED = {"LOOPSENTRY_WATCH": "1"}
every_fix = pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.id)
every_example = pytest.mark.parametrize(
    ("fix", "example"),
    [
        pytest.param(fix, example, id=f"{fix.id}-{example.cause}")
        for fix in FIXES
        for example in fix.examples
    ],
)


@every_example
def test_broken_program_fails_with_exactly_its_code(
    fix: Remedy, example: Example, run_program: RunProgram
) -> None:
    """The broken program is diagnosed, and with nothing but the cause that it is to show."""
    _need_libraries(example.broken)
    cause = example.cause
    ended = run_program(example.broken, env=WATCHED)
    told = {(record["code"], record["cause"]) for record in ended.records}
    assert told == {(CODES[cause], cause)}, ended.output
    assert CODES[cause] in ended.output
    offered = [offer["id"] for offer in ended.records[0]["fixes"]]
    assert fix.id in offered or fix.only_in


@every_example
def test_fixed_program_is_silent(fix: Remedy, example: Example, run_program: RunProgram) -> None:
    """The cured program ends well under loopsentry, and nothing at all is reported."""
    _need_libraries(example.fixed)
    ended = run_program(example.fixed, env=WATCHED)
    assert (ended.returncode, ended.records) == (0, []), (fix.id, ended.output)
    assert not re.search(r"\bLS\d{3}\b", ended.output)


def _need_libraries(program: str) -> None:
    for library in re.findall(
        r"^(?:from|import) (httpx|asyncpg|pytest_asyncio)\b", program, re.MULTILINE
    ):
        pytest.importorskip(library)


@every_fix
def test_header_uses_the_contract_words(fix: Remedy) -> None:
    """A header names causes, contexts and objects that records can contain."""
    assert fix.cures
    assert set(fix.cures) <= CODES.keys() - {"undetermined"}
    assert {*fix.first_in, *fix.only_in} <= CONTEXTS
    assert not fix.only_in or set(fix.first_in) <= set(fix.only_in)
    assert set(fix.objects) <= contract.OBJECTS
    assert {*fix.needs, *fix.unless} <= contract.CONDITIONS
    for name in fix.wording:
        cause, _, condition = name.rpartition(".")
        assert condition in contract.CONDITIONS | set(fix.cures)
        assert not cause or cause in fix.cures


@every_fix
def test_title_is_one_plain_line(fix: Remedy) -> None:
    """A title is one lowercase line without a full stop that fits an 80 column message."""
    assert 0 < len(fix.title) <= 70
    assert fix.title[0].islower()
    assert "\n" not in fix.title
    assert not fix.title.endswith(".")
    assert fix.reason.strip()
    assert not fix.reason.endswith(".")


@every_fix
def test_snippet_takes_the_readers_names(fix: Remedy) -> None:
    """A snippet is one to six short lines whose placeholders are all known."""
    names = {"engine": "app_engine", "function": "load_tables()", "other": "load_roles()"}
    names |= {"attribute": "changed", "sessions": "sessions()", "opener": "warm_up()"}
    names |= {"lock": "registry_lock", "made": "asyncio.Condition()", "block": "pool.acquire()"}
    names |= {"keeping": "Session = async_sessionmaker(engine, expire_on_commit=False)"}
    names |= {"owner": "Order", "name": "Order.lines", "call": "scalars", "called": "report"}
    for told in ((), *((name,) for name in fix.wording)):
        lines = Template(fix.say("snippet", told)).substitute(names).splitlines()
        assert 1 <= len(lines) <= 6
        assert all(len(line) <= 72 for line in lines), lines
        assert 0 < len(fix.say("title", told)) <= 70


@every_fix
def test_text_explains_before_it_shows(fix: Remedy) -> None:
    """The long version begins with prose, and the two programs of each example differ."""
    assert not fix.text.startswith("#")
    assert fix.text.count("```python") == 2 * len(fix.examples)
    assert fix.examples[0].cause == fix.cures[0]
    for example in fix.examples:
        assert example.cause in fix.cures
        assert example.broken != example.fixed


def test_titles_are_unique() -> None:
    """No two cures say the same."""
    titles = [fix.title for fix in FIXES]
    assert len(set(titles)) == len(titles)


def test_every_cause_that_can_be_judged_has_a_cure() -> None:
    """For each published cause, but the undetermined one, something can be offered."""
    cured = {cause for fix in FIXES for cause in fix.cures}
    assert set(contract.CAUSES.values()) - {"undetermined"} <= cured


@pytest.mark.parametrize("cause", sorted(set(CODES) - {"undetermined"}))
def test_every_cause_is_explained_with_a_program(cause: str) -> None:
    """`loopsentry explain` shows a program of each cause that fails, and the same one cured."""
    shown = explain(cause)
    examples = [ex for fix in FIXES for ex in fix.examples if ex.cause == cause]
    assert any(ex.broken in shown and ex.fixed in shown for ex in examples)
