"""`loopsentry attach PID`: asking another process, as far as its Python allows that."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from loopsentry import attach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REMOTE = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="sys.remote_exec came with Python 3.14"
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which signals are handled")

MOVING = """
import asyncio

async def tick():
    while True:
        await asyncio.sleep(0.05)

async def main():
    task = asyncio.create_task(tick(), name="ticker")
    print("ready", flush=True)
    await task

asyncio.run(main())
"""
SLEEPING = """
import asyncio, sys
if "signal" in sys.argv:
    import loopsentry
    loopsentry.on_signal(file=open(__file__ + ".out", "w"))

async def main():
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@contextmanager
def running(folder: Path, program: str, *args: str, isolated: bool = False) -> Iterator[int]:
    """A program that has said that it is ready; it must still run at the end."""
    file = folder / "main.py"
    file.write_text(textwrap.dedent(program), "utf-8")
    options = ["-P"] if isolated else []
    with subprocess.Popen(
        [sys.executable, *options, str(file), *args], stdout=subprocess.PIPE, text=True, cwd=folder
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child.pid
            assert child.poll() is None
        finally:
            child.kill()


def ask(pid: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "loopsentry", "attach", str(pid), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@REMOTE
def test_a_program_that_never_installed_it_is_shown(tmp_path: Path) -> None:
    """A moving program tells its loops and tasks, keeps nothing of it, and goes on."""
    with running(tmp_path, MOVING) as pid:
        ended = ask(pid)
        again = ask(pid)
    assert ended.returncode == 0, ended.stderr
    assert f"process {pid}, " in ended.stdout
    assert "not installed here: who owned and opened what was not recorded" in ended.stdout
    assert (
        "asyncio.run in <module>, main.py:13, running; thread MainThread; 2 tasks" in ended.stdout
    )
    assert "ticker  main.py:6 tick(); awaits sleep()" in ended.stdout
    assert again.returncode == 0, again.stderr


@REMOTE
def test_a_program_that_sleeps_does_not_answer_and_is_not_signalled(tmp_path: Path) -> None:
    """Without an answer the command says why, and what can be done; the program lives."""
    with running(tmp_path, SLEEPING) as pid:
        ended = ask(pid, "--wait", "0.5")
    assert ended.returncode == 1
    assert "has not answered in 0.5 s: its main thread waits in a call" in ended.stderr
    assert "--signal USR1" in ended.stderr


@REMOTE
@LINUX
def test_a_signal_that_the_program_handles_wakes_it(tmp_path: Path) -> None:
    """With --signal a program that waits in a call answers, if it handles that signal."""
    with running(tmp_path, SLEEPING, "signal") as pid:
        ended = ask(pid, "--signal", "USR1")
    assert ended.returncode == 0, ended.stderr
    assert "awaits a future" in ended.stdout


@REMOTE
@LINUX
def test_a_signal_that_would_end_the_program_is_refused(tmp_path: Path) -> None:
    """A signal without a handler is not sent."""
    with running(tmp_path, MOVING) as pid:
        ended = ask(pid, "--signal", "SIGUSR1")
    assert ended.returncode == 1
    assert "does not handle SIGUSR1, which could end it" in ended.stderr


@REMOTE
def test_a_process_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """What cannot be asked is said in one line."""
    with running(tmp_path, MOVING) as pid:
        pass
    ended = ask(pid)
    assert ended.returncode == 1
    assert str(pid) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_older_python_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.14 the command names what works there."""
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    with pytest.raises(attach.AttachError, match=r"3\.14 or newer.*on_signal.*kill -USR1"):
        attach.ask(1, seconds=1)


def test_a_signal_that_does_not_exist_is_wrong_use() -> None:
    """A name that no signal has ends with exit status 2 and those there are."""
    ended = ask(1, "--signal", "NONSENSE")
    assert ended.returncode == 2
    assert "no such signal: NONSENSE" in ended.stderr
    assert "SIGINT" in ended.stderr
