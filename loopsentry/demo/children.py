"""Child processes that write to a file, are waited for with a limit, and never stay behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PAUSE = 0.02  # seconds between two looks at a child's output


class Child:
    """A Python process whose standard error goes to a file.

    Args:
        arguments: what follows `python` on the command line.
        folder: its working directory.
        environment: all of its environment.
        output: the file that takes its standard error, and its standard output too.
        apart: whether it is kept from a terminal's signals.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        output: Path,
        apart: bool = False,
    ) -> None:
        self.output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 - python itself, with our arguments
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=apart,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def written(self) -> str:
        """What it has written so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def await_text(self, pattern: str, deadline: float) -> re.Match[str] | None:
        """Wait until it has written a line; None if it ended before, or at the deadline."""
        while True:
            ended = self._process.poll() is not None
            found = re.search(pattern, self.written(), re.MULTILINE)
            if found or ended or time.monotonic() > deadline:
                return found
            time.sleep(PAUSE)

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        if sys.platform == "win32":
            self._process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            self._process.send_signal(signal.SIGINT)

    def end(self, deadline: float) -> int:
        """End its standard input, wait for it until the deadline, then kill it.

        Returns:
            Its exit status.
        """
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self._process.kill()
        self._process.wait()
