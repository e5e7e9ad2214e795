"""Asking another process what it is doing, with what Python 3.14 gives for that: PEP 768."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Seconds between two looks for the answer.
PERIOD = 0.05

Lines = list[tuple[str, str]]

# Runs in the other process, as soon as its main thread comes to the next line of Python. A thread
# does the work, so that the program goes on, and what was imported for it is forgotten again.
_SCRIPT = """
def _loopsentry_tell():
    import json, os, shutil, sys
    before, folder = set(sys.modules), {folder!r}
    def load():
        try:
            import loopsentry
        except ImportError:
            from importlib.util import module_from_spec, spec_from_file_location as find
            path = {package!r}
            spec = find("loopsentry", path + "/__init__.py", submodule_search_locations=[path])
            module = sys.modules["loopsentry"] = module_from_spec(spec)
            spec.loader.exec_module(module)
    def tell():
        try:
            load()
            from loopsentry import inspection, overview
            answer = {{"lines": list(overview.tell(inspection.status()))}}
        except BaseException as exc:
            answer = {{"failed": f"{{type(exc).__name__}}: {{exc}}"}}
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "loopsentry":
                del sys.modules[name]
        try:
            with open(folder + "/writing", "w", encoding="utf-8") as file:
                json.dump(answer, file)
            os.replace(folder + "/writing", folder + "/answer")
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
    import _thread
    _thread.start_new_thread(tell, ())
_loopsentry_tell()
del _loopsentry_tell
"""


class AttachError(Exception):
    """The other process could not be asked, or did not answer; the text says what to do."""


def ask(pid: int, *, seconds: float, signum: int | None = None) -> Lines:
    """Ask a process what it is doing.

    The other process imports loopsentry for a moment, from where it finds it or else from here, in
    a thread of its own. It needs the same Python, 3.14 or newer.

    Args:
        pid: the process.
        seconds: how long to wait for its answer.
        signum: a signal to send after asking, so that a call in which it waits is interrupted.

    Returns:
        The lines of its status, each with its style.

    Raises:
        AttachError: if it cannot be asked, or does not answer in time.

    Since version 0.1.0. Source: PEP 768, CPython's Python/remote_debugging.c.
    """
    remote_exec: Any = getattr(sys, "remote_exec", None)
    if remote_exec is None:
        raise AttachError(
            f"needs Python 3.14 or newer on both sides, and this is"
            f" {sys.version_info.major}.{sys.version_info.minor};"
            " in the program call loopsentry.on_signal(), then: kill -USR1 PID"
        )
    if signum is not None:
        _refuse_deadly(pid, signum)
    folder = Path(tempfile.mkdtemp(prefix="loopsentry"))
    folder.chmod(0o777 if _is_of_another_user(pid) else 0o700)
    script = folder / "script.py"
    text = _SCRIPT.format(folder=str(folder), package=str(Path(__file__).parent))
    script.write_text(text, "utf-8")
    try:
        _execute(remote_exec, pid, script)
        if signum is not None:
            os.kill(pid, signum)
    except AttachError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    answer = _wait(folder / "answer", pid, seconds)
    shutil.rmtree(folder, ignore_errors=True)
    if "failed" in answer:
        raise AttachError(f"process {pid} cannot tell: {answer['failed']}")
    return [(str(line), str(style)) for line, style in answer["lines"]]


def _execute(remote_exec: Any, pid: int, script: Path) -> None:
    try:
        remote_exec(pid, str(script))
    except PermissionError as exc:
        raise AttachError(
            f"not allowed to look into process {pid}: run this as root, or as the same user where"
            " the system lets a user trace processes"
        ) from exc
    except ProcessLookupError as exc:
        raise AttachError(f"there is no process {pid}") from exc
    except (RuntimeError, OSError) as exc:
        raise AttachError(
            f"process {pid} cannot be asked: {exc}. It must run the same version of Python as this"
            f" ({sys.version_info.major}.{sys.version_info.minor}), with remote debugging allowed"
        ) from exc


def _wait(answer: Path, pid: int, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not answer.exists():
        if time.monotonic() > deadline:
            # The script stays: a file that is gone when its turn comes is complained of there.
            raise AttachError(
                f"process {pid} has not answered in {seconds:g} s: its main thread waits in a call,"
                " as that of a sleeping event loop does, and answers when it next runs Python."
                " Where the program has called loopsentry.on_signal(), add --signal USR1"
            )
        time.sleep(PERIOD)
    found: dict[str, Any] = json.loads(answer.read_text("utf-8"))
    return found


def _is_of_another_user(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid != os.getuid()
    except (OSError, AttributeError):
        return False


def _refuse_deadly(pid: int, signum: int) -> None:
    """Refuse to send a signal that would end the process, where the system says what it handles."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return
    handled = next((line for line in text.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    if not int(handled.split()[1], 16) >> (signum - 1) & 1:
        raise AttachError(
            f"process {pid} does not handle {signal.Signals(signum).name}, which could end it;"
            " in the program call loopsentry.on_signal()"
        )
