"""Every cure on the shelf: its header, its failing program and its cured one."""

from __future__ import annotations

import re
from string import Template
from typing import TYPE_CHECKING

import pytest

from loopsentry import catalog

if TYPE_CHECKING:
    from conftest import RunProgram

    from loopsentry.diagnosis import Remedy

FIXES = catalog.load_fixes()
CODES = {cause.name: cause.code for cause in catalog.load_causes()}

# The words of the contract for records, schema 1.
CAUSES = {
    "closed-loop",
    "two-live-loops",
    "late-cleanup",
    "foreign-primitive",
    "foreign-future",
    "concurrent-use",
    "close-races-operation",
    "cancelled-operation",
    "used-after-release",
    "forked-connection",
    "missing-greenlet",
    "nested-run",
    "server-disconnect",
}
CONTEXTS = {
    "asyncio-run",
    "uvicorn",
    "pytest-asyncio",
    "anyio-pytest",
    "testclient",
    "celery",
    "alembic",
    "cli",
    "thread",
    "fork",
    "notebook",
    "asgiref",
    "serverless",
    "task-queue",
    "unknown",
}
OBJECTS = {"connection", "session", "pool", "engine", "primitive", "future"}
NAMES = {
    "fresh-session",
    "loop-local-pool",
    "single-run",
    "dispose-in-loop",
    "null-pool",
    "lifespan-engine",
    "testclient-context",
    "async-test-client",
    "pytest-loop-scope",
    "worker-loop",
    "submit-to-owner",
    "create-in-loop",
    "session-per-task",
    "await-siblings",
    "shield-cleanup",
    "scope-session",
    "dispose-after-fork",
    "eager-load",
    "await-instead",
    "retry-connection",
}

every_fix = pytest.mark.parametrize("fix", FIXES, ids=lambda fix: fix.id)


@every_fix
def test_broken_program_fails_with_exactly_its_code(fix: Remedy, run_program: RunProgram) -> None:
    """The broken program is diagnosed, and with nothing but the first cause that it names."""
    _need_libraries(fix.broken)
    cause = fix.cures[0]
    if cause not in CODES:
        pytest.skip(f"the cause {cause} is not on its shelf yet")
    ended = run_program(fix.broken)
    told = {(record["code"], record["cause"]) for record in ended.records}
    assert told == {(CODES[cause], cause)}, ended.output
    assert CODES[cause] in ended.output
    offered = [offer["id"] for offer in ended.records[0]["fixes"]]
    assert fix.id in offered or fix.only_in


@every_fix
def test_fixed_program_is_silent(fix: Remedy, run_program: RunProgram) -> None:
    """The cured program ends well under loopsentry, and nothing at all is reported."""
    _need_libraries(fix.fixed)
    ended = run_program(fix.fixed)
    assert (ended.returncode, ended.records) == (0, []), ended.output
    assert not re.search(r"\bLS\d{3}\b", ended.output)


def _need_libraries(program: str) -> None:
    for library in re.findall(
        r"^(?:from|import) (httpx|asyncpg|pytest_asyncio)\b", program, re.MULTILINE
    ):
        pytest.importorskip(library)


@every_fix
def test_header_uses_the_contract_words(fix: Remedy) -> None:
    """A header names causes, contexts and objects that records can contain."""
    assert fix.id in NAMES
    assert fix.cures
    assert set(fix.cures) <= CAUSES
    assert {*fix.first_in, *fix.only_in} <= CONTEXTS
    assert not fix.only_in or set(fix.first_in) <= set(fix.only_in)
    assert set(fix.objects) <= OBJECTS


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
    """A snippet is one to three short lines whose placeholders are all known."""
    names = {"engine": "app_engine", "function": "load_tables()", "other": "load_roles()"}
    lines = Template(fix.snippet).substitute(names).splitlines()
    assert 1 <= len(lines) <= 3
    assert all(len(line) <= 72 for line in lines), lines


@every_fix
def test_text_explains_before_it_shows(fix: Remedy) -> None:
    """The long version begins with prose, and its two programs differ."""
    assert not fix.text.startswith("#")
    assert fix.text.count("```python") == 2
    assert fix.broken != fix.fixed


def test_titles_are_unique() -> None:
    """No two cures say the same."""
    titles = [fix.title for fix in FIXES]
    assert len(set(titles)) == len(titles)


def test_every_cause_that_can_be_judged_has_a_cure() -> None:
    """For each cause on the shelf, but the undetermined one, something can be offered."""
    cured = {cause for fix in FIXES for cause in fix.cures}
    assert set(CODES) - {"undetermined"} <= cured
