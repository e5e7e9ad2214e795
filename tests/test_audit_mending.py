"""`audit --fix`: edits that cure what is proven, shown first, refused where they cure nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit_projects import lay_out
from click.testing import CliRunner

from loopsentry.audit.auditor import audit
from loopsentry.cli import cli

pytest.importorskip("libcst", reason="libcst has no wheel for this Python")

#: Projects whose proven findings each edit cures.
CURED = {
    "loop-local-pool": ("celery-send-other-module", "db-manager-module", "dict-of-engines"),
    "fresh-session": ("dramatiq", "rq", "inner-async-def"),
    "null-pool": ("contextmanager-helper", "session-factory-class-static", "lru-cache-getter"),
    "dispose-in-loop": ("contextmanager-helper", "inner-async-def", "rq"),
}
CASES = [(edit, name) for edit, names in CURED.items() for name in names]


def run(*arguments: Any) -> tuple[int, str, str]:
    """Run the command; give its status, and what it printed and told."""
    ended = CliRunner().invoke(cli, ["audit", "--no-cache", *map(str, arguments)])
    return ended.exit_code, ended.stdout, ended.stderr


def texts(folder: Path) -> dict[str, str]:
    """All files of a project."""
    return {str(path): path.read_text("utf-8") for path in folder.rglob("*.py")}


@pytest.mark.parametrize(("edit", "name"), CASES)
def test_an_edit_cures_what_is_proven(tmp_path: Path, edit: str, name: str) -> None:
    """It is shown as a diff and changes nothing; written, the finding is gone and the file runs."""
    lay_out(tmp_path, name)
    before = texts(tmp_path)
    assert [each.certainty for each in audit([tmp_path]).findings] == ["proven"]
    status, shown, _ = run(tmp_path, "--fix", edit)
    assert status == 1
    assert shown.startswith("--- a/app/")
    assert texts(tmp_path) == before
    status, shown, told = run(tmp_path, "--fix", edit, "--write")
    assert (status, "1 edits written" in told) == (0, True)
    assert texts(tmp_path) != before
    assert audit([tmp_path]).findings == []
    for path, text in texts(tmp_path).items():
        compile(text, path, "exec")


def test_the_first_edit_is_the_pool_for_each_loop(tmp_path: Path) -> None:
    """Without a name `--fix` gives the engine a LoopLocalPool, and imports it."""
    _, shown, _ = run(lay_out(tmp_path, "contextmanager-helper"), "--fix")
    assert "+from loopsentry import LoopLocalPool" in shown
    assert "poolclass=LoopLocalPool)" in shown


def test_an_edited_engine_is_what_the_edit_says(tmp_path: Path) -> None:
    """A program with the edit runs, and its engine has the pool."""
    lay_out(tmp_path, "contextmanager-helper")
    run(tmp_path, "--fix", "--write")
    program = "from app.db import engine; print(type(engine.pool).__name__)"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "LoopLocalPool\n"


REFUSED = {
    "a pool that is chosen": ('db/shop"', 'db/shop", poolclass=None', "chosen already"),
    "options of elsewhere": ('db/shop"', 'db/shop", **options', "come from elsewhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_edited_is_told(tmp_path: Path, case: str) -> None:
    """An engine whose options are decided elsewhere is left as it is, with the reason."""
    old, new, words = REFUSED[case]
    lay_out(tmp_path, "contextmanager-helper")
    db = tmp_path / "app" / "db.py"
    text = db.read_text("utf-8").replace(old, new).replace("engine =", "options = {}\nengine =")
    db.write_text(text, "utf-8")
    status, shown, told = run(tmp_path, "--fix", "--write")
    assert (status, shown) == (1, "")
    assert words in told
    assert db.read_text("utf-8") == text


def test_a_session_that_others_open_too_is_left(tmp_path: Path) -> None:
    """A helper that opens the session for others as well is no place for a fresh one."""
    status, shown, told = run(lay_out(tmp_path, "contextmanager-helper"), "--fix", "fresh-session")
    assert (status, shown) == (1, "")
    assert "opens no session" in told


def test_an_edit_after_which_the_finding_stays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each edit is audited before it is shown: one that cures nothing is not offered."""
    from loopsentry.audit import mending

    monkeypatch.setitem(mending._POOLS, "null-pool", ("sqlalchemy.pool", "QueuePool"))
    status, shown, told = run(lay_out(tmp_path, "contextmanager-helper"), "--fix", "null-pool")
    assert (status, shown) == (1, "")
    assert "was tried, and the finding stays" in told


def test_without_libcst_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named where it is missing."""
    monkeypatch.setitem(sys.modules, "libcst", None)
    monkeypatch.delitem(sys.modules, "loopsentry.audit.mending", raising=False)
    status, _, told = run(lay_out(tmp_path, "contextmanager-helper"), "--fix")
    assert status == 2
    assert "sqlalchemy-loopsentry[fix]" in " ".join(told.split())
