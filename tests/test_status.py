"""What a running program tells of itself: in code, as text, and on a signal."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

import loopsentry
from loopsentry.model import LoopInfo
from loopsentry.overview import tell
from loopsentry.snapshot import LoopStatus, Status, TaskStatus

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunProgram

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGUSR1")

PROGRAM = """
import asyncio, json, os, sys, threading, time
import loopsentry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

if "installed" in sys.argv:
    loopsentry.install(watch=0.2)
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=2)
sessions = async_sessionmaker(engine)
lock = asyncio.Lock()
ready = threading.Event()

async def hold():
    async with sessions() as session:
        await session.execute(text("select pg_sleep(2)"))

async def touch():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))

async def wait():
    async with lock:
        pass

async def main():
    async with lock:
        holder = asyncio.create_task(hold(), name="holder")
        waiter = asyncio.create_task(wait(), name="waiter")
        await touch()
        await asyncio.sleep(0.3)
        ready.set()
        time.sleep(1.2)
    await holder
    await waiter
    await engine.dispose()

async def idle():
    await asyncio.gather(*(asyncio.sleep(3) for _ in range(30)))

def serve():
    asyncio.run(idle())

def look():
    ready.wait()
    time.sleep(0.7)
    loopsentry.print_status(sys.stdout)
    sys.stdout.flush()

threading.Thread(target=serve, name="server", daemon=True).start()
threading.Thread(target=look).start()
asyncio.run(main())
"""


def shown(text: str) -> str:
    """A printed status without what differs from run to run."""
    text = re.sub(r"process \d+, [\d:]+ UTC", "process N, TIME", text)
    text = re.sub(r"Task-\d+", "Task-N", text)
    text = re.sub(r"\S+://\S+", "URL", text)
    text = re.sub(r"for \d+ s\b", "for S s", text)
    return re.sub(r"\d s ago", "S s ago", text)


def test_a_status_names_loops_tasks_engines_and_who_holds_what(run_program: RunProgram) -> None:
    """Printed while one loop is blocked: each loop's starter and tasks, each connection's owner."""
    text = shown(run_program(PROGRAM, "installed", under=False).stdout)
    lines = text.splitlines()
    assert lines[0] == "loopsentry 0.1.0, process N, TIME"
    main = next(i for i, line in enumerate(lines) if "thread MainThread" in line)
    assert re.fullmatch(
        r"loop \d+: asyncio.run in <module>, main.py:\d+, running; thread MainThread; 3 tasks",
        lines[main],
    )
    assert re.fullmatch(r"  its thread is at main.py:\d+ main\(\)( for S s)?", lines[main + 1])
    assert lines[main + 2 : main + 5] == [
        "  Task-N; running",
        "  holder  main.py:16 hold(); awaits AsyncSession.execute()",
        "  waiter  main.py:23 wait(); awaits Lock.__aenter__()",
    ], text
    other = next(i for i, line in enumerate(lines) if "thread server" in line)
    assert "asyncio.run in serve(), main.py:" in lines[other]
    assert lines[other].endswith("; 31 tasks")
    assert lines[other + 2] == "  Task-N and 29 like it; awaits sleep()"
    engine = lines.index("engine `engine`, main.py: URL")
    assert lines[engine + 1] == "  AsyncAdaptedQueuePool, size 2: 1 out, 1 idle"
    number = lines[main].partition(":")[0]
    opened = f"  asyncpg connection of {number}, running; opened at main.py"
    assert f"{opened}:19 touch() S s ago" in lines
    held = lines.index(f"{opened}:16 hold() S s ago")
    assert lines[held + 1] == "    out: AsyncSession, in hand of holder at main.py:16 hold()"


def test_a_status_without_an_installation_says_what_is_not_known(run_program: RunProgram) -> None:
    """Where nothing was recorded the loops, tasks and pools are there; the rest is not guessed."""
    text = shown(run_program(PROGRAM, under=False).stdout)
    assert "not installed here: who owned and opened what was not recorded" in text
    assert "loop, not recorded: asyncio.run in <module>, main.py:" in text
    assert "  waiter  main.py:23 wait(); awaits Lock.__aenter__()" in text
    assert "engine `engine`, main.py: URL" in text
    assert "  and 2 whose opening was not recorded" in text
    assert "opened at" not in text


def test_a_status_tells_what_was_told(run_program: RunProgram) -> None:
    """Mistakes stand in the status with how often they happened and where first."""
    program = """
    import asyncio, logging, loopsentry

    loopsentry.install()
    lock = asyncio.Lock()

    async def take():
        async with lock:
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(take(), take())

    for _ in range(3):
        try:
            asyncio.run(both())
        except RuntimeError as error:
            logging.exception("failed")
    for mistake in loopsentry.status().mistakes:
        print(mistake.count, mistake.diagnosis.code, mistake.diagnosis.used_at.function)
    """
    ended = run_program(textwrap.dedent(program), under=False)
    assert ended.stdout.split() == ["2", "LS104", "take"], ended.output


def test_a_status_keeps_nothing_and_changes_nothing() -> None:
    """Neither a loop nor an exception hook is held or changed by being looked at."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook

    async def look() -> Status:
        return loopsentry.status()

    loop = asyncio.new_event_loop()
    found = loop.run_until_complete(look())
    mine = [each for each in found.loops if each.tasks and each.tasks[0].state == "running"]
    assert len(mine) == 1
    assert found.recorded is False
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    assert (sys.excepthook, threading.excepthook, sys.unraisablehook) == hooks


def test_many_tasks_are_counted_where_they_are_not_listed() -> None:
    """Of more than a thousand tasks the rest is counted, and like ones share a line."""

    async def sleep() -> None:
        await asyncio.sleep(60)

    async def main() -> LoopStatus:
        tasks = [asyncio.ensure_future(sleep()) for _ in range(1_500)]
        await asyncio.sleep(0)
        running = asyncio.get_running_loop()
        mine = next(each for each in loopsentry.status().loops if each.info.state == "running")
        assert running.is_running()
        for task in tasks:
            task.cancel()
        return mine

    found = asyncio.run(main())
    assert len(found.tasks) + found.more == 1_501
    assert len(found.tasks) <= 1_000
    lines = [line for line, _ in tell(Status(version="1", loops=(found,)))]
    assert any(re.search(r"and \d+ like it", line) for line in lines)
    assert lines[-1] == f"  and {found.more} more"


def test_what_a_program_named_cannot_write_on_the_terminal() -> None:
    """Control characters in the names of tasks and threads are shown, not obeyed."""
    task = TaskStatus(name="evil\x1b[2J\nname")
    loop = LoopStatus(info=LoopInfo(id=1, runner="\x07asyncio.run"), tasks=(task,))
    text = "".join(line for line, _ in tell(Status(version="1", loops=(loop,))))
    assert "evil" in text
    assert "\x1b" not in text
    assert "\x07" not in text


# on a signal -----------------------------------------------------------------------------------

BLOCKED = {
    "select": "await asyncio.sleep(60)",
    "sleep": "time.sleep(60)",
    "result": "asyncio.run_coroutine_threadsafe(answer(), loop).result(60)",
    "join": "t = threading.Thread(target=time.sleep, args=(60,), daemon=True); t.start(); t.join()",
    "computes": "while True: pass",
}


def program_blocked_by(statement: str) -> str:
    """A program that asks for its status on a signal, and then does nothing else for a minute."""
    return f"""
import asyncio, threading, time
import loopsentry

async def answer(): return 42

async def main():
    loop = asyncio.get_running_loop()
    loopsentry.on_signal()
    print("ready", flush=True)
    {statement}

asyncio.run(main())
"""


@UNIX
@pytest.mark.parametrize("how", sorted(BLOCKED))
def test_a_signal_shows_the_status_however_the_loop_is_blocked(how: str, tmp_path: Path) -> None:
    """One signal gives one status on standard error, and the program goes on as it was."""
    file = tmp_path / "main.py"
    file.write_text(program_blocked_by(BLOCKED[how]), "utf-8")
    with subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            child.send_signal(signal.SIGUSR1)
            lines: list[str] = []
            while not lines or "main()" not in lines[-1]:
                lines.append(child.stderr.readline())
                assert lines[-1], "the program ended"
            assert child.poll() is None
        finally:
            child.kill()
    assert lines[0].startswith("loopsentry 0.1.0, process ")


@UNIX
def test_the_handler_of_before_is_called_too_and_comes_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A program's own handler for the signal goes on being called, and is put back afterwards."""
    called = []

    def mine(number: int, _frame: object) -> None:
        called.append(number)

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        undo = loopsentry.on_signal()
        os.kill(os.getpid(), signal.SIGUSR1)
        deadline = time.monotonic() + 10
        text = ""
        while "process" not in text and time.monotonic() < deadline:
            time.sleep(0.02)
            text += capfd.readouterr().err
        undo()
        assert called == [signal.SIGUSR1]
        assert "loopsentry 0.1.0, process" in text
        assert signal.getsignal(signal.SIGUSR1) is mine
        undo()
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)


@UNIX
def test_signals_are_for_the_main_thread() -> None:
    """In another thread it is refused as `signal.signal` refuses it."""
    refused: list[str] = []

    def ask() -> None:
        try:
            loopsentry.on_signal()
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert "main thread" in refused[0]


def test_a_system_without_the_signal_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no SIGUSR1 nothing happens, and a warning names a signal that there is."""
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    loopsentry.on_signal()()
    assert "this system has no SIGUSR1" in caplog.text
    assert "SIGBREAK" in caplog.text
