"""A temporary folder that is gone afterwards, however the demo ends."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder and remove it at the end: also on Ctrl-C, SIGTERM and a closed terminal."""
    with (
        _orderly_end(),
        TemporaryDirectory(prefix="loopsentry-demo-", ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Turn the first signal to end into an exception, and ignore the next while cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = [signal.SIGINT, *_ENDINGS]
    before = {number: signal.getsignal(number) for number in watched}
    replaced = [number for number in watched if before[number] is not signal.SIG_IGN]

    def end(number: int, _frame: FrameType | None) -> None:
        for each in replaced:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, before[number])
