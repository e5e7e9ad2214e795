"""How the audit reads a project: the cache, other processes, names that files give to things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from audit_projects import CORPUS, write

from loopsentry.audit import reading
from loopsentry.audit.auditor import audit
from loopsentry.audit.findings import Audit
from loopsentry.audit.reading import cache_of
from loopsentry.audit.reports import render

CASE = CORPUS / "found" / "celery-send-other-module.txt"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a mistake that goes through several files."""
    folder = tmp_path / "project"
    folder.mkdir()
    write(folder, CASE)
    return folder


def told(found: Audit) -> str:
    """What is reported, all of it."""
    return render(found, "json")


def test_a_warm_audit_says_what_a_cold_one_says(project: Path) -> None:
    """The second audit reads the cache, the same findings with the same keys come out."""
    cold = audit([project], cached=True)
    assert cold.findings
    assert cache_of(project).is_file()
    assert told(audit([project], cached=True)) == told(cold) == told(audit([project]))


def test_a_file_that_changed_is_read_anew(project: Path) -> None:
    """A cure between two audits is seen; what did not change comes from the cache."""
    assert audit([project], cached=True).findings
    helper = project / "app" / "helpers.py"
    stamp = helper.stat()
    helper.write_text(helper.read_text("utf-8").replace("asyncio.run(", "print(   "), "utf-8")
    os.utime(helper, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert audit([project], cached=True).findings == []


@pytest.mark.parametrize("content", [b"", b"\x00", b"no cache at all", b"("])
def test_a_broken_cache_is_a_cold_run(project: Path, content: bytes) -> None:
    """Whatever stands in the cache's place, the findings are those of the files."""
    expected = told(audit([project]))
    kept = cache_of(project)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    assert told(audit([project], cached=True)) == expected
    assert kept.stat().st_size > len(content)
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    assert told(audit([project], cached=True)) == expected


def test_another_version_s_cache_is_not_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that another version wrote is read anew and replaced."""
    audit([project], cached=True)
    before = cache_of(project).read_bytes()
    monkeypatch.setattr("loopsentry.__version__", "another")
    assert audit([project], cached=True).findings
    assert cache_of(project).read_bytes() != before


def test_a_cache_that_cannot_be_written_is_none(project: Path, tmp_path: Path) -> None:
    """Where the user's cache directory is a file, the audit goes on without."""
    (tmp_path / "cache").write_text("in the way", "utf-8")
    assert audit([project], cached=True).findings


def test_without_being_asked_nothing_is_kept(project: Path, tmp_path: Path) -> None:
    """The function keeps nothing; the command keeps, and with `--no-cache` it does not."""
    audit([project])
    command = [sys.executable, "-m", "loopsentry", "audit", str(project), "--exit-zero"]
    subprocess.run([*command, "--no-cache"], check=True, stdout=subprocess.DEVNULL)
    assert not (tmp_path / "cache").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert cache_of(project).is_file()
    assert not any(path.suffix == ".audit" for path in project.rglob("*"))


def make_large(project: Path) -> None:
    """Fill a project until it is worth other processes."""
    line = "def function_{0}(value):\n    return [value.name for each in range({0})]\n"
    text = "".join(line.format(number) for number in range(700))
    for number in range(reading._WORTH_PROCESSES // len(text) + 2):
        (project / f"filler_{number}.py").write_text(text, "utf-8")


@pytest.mark.slow
def test_other_processes_read_what_this_one_would(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large project is read by several processes, with the same outcome, and says how far."""
    make_large(project)
    (project / "broken.py").write_text("def (", "utf-8")
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    several = audit([project], progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == several.files + 1
    assert len(steps) > 2
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert told(audit([project])) == told(several)


@pytest.mark.slow
def test_processes_that_cannot_start_cost_nothing_but_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no interpreter can be started, this process reads all files itself."""
    make_large(project)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/bin/false" if os.name == "posix" else "none")
    assert audit([project]).findings


RENAMED = {
    "an import": ("from asyncio import run as go\n", "go(work())"),
    "a module": ("import asyncio as aio\n", "aio.run(work())"),
    "an assignment": ("import asyncio\ngo = asyncio.run\n", "go(work())"),
    "a star": ("from app.tools import *\n", "start(work())"),
    "a package": ("from app import tools\n", "tools.start(work())"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_names_are_followed_whatever_they_are(tmp_path: Path, case: str) -> None:
    """A start is found through renamed imports, assignments and star imports."""
    head, call = RENAMED[case]
    app = tmp_path / "app"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "tools.py").write_text("import asyncio\ndef start(work):\n    asyncio.run(work)\n")
    (app / "db.py").write_text(
        "from sqlalchemy.ext.asyncio import create_async_engine as make\n"
        'engine = make("postgresql+asyncpg://db/shop")\n'
    )
    (app / "tasks.py").write_text(
        f"{head}from celery import shared_task\nfrom app.db import engine\n"
        "async def work():\n    async with engine.connect() as connection:\n"
        f"        await connection.close()\n@shared_task\ndef send():\n    {call}\n"
    )
    assert [(f.code, f.certainty) for f in audit([tmp_path]).findings] == [("LSA101", "proven")]
