"""Summaries of many files: from the cache, from other processes, or read here.

The cache is one file for a project in the user's own cache directory, never in the project. It
holds summaries alone, so what is found is found anew; one that cannot be used is a cold run.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import loopsentry

from .summaries import FORM, Outcome, read_file

#: Reports how many of how many files are read.
Progress = Callable[[int, int], None]
#: Size, time of the last change and number of a file, which change with its contents.
_Stamp = tuple[int, int, int]

#: From so many bytes on, other processes pay for their start.
_WORTH_PROCESSES = 3_000_000
_CHUNK = 400_000
_MOST_PROCESSES = 8
_WORKER = (
    "import sys; sys.path[:0] = [sys.argv[1]]; "
    "from loopsentry.audit import summaries; summaries.serve()"
)


def read_all(
    paths: list[Path], cache: Path | None, progress: Progress | None = None
) -> dict[Path, Outcome]:
    """Read all files, each from the cache where it is as it was."""
    known = _load(cache) if cache is not None else {}
    stamps = {path: _stamp(path) for path in paths}
    found: dict[Path, Outcome] = {}
    for path, stamp in stamps.items():
        kept = known.get(str(path))
        if kept is not None and stamp is not None and kept[0] == stamp:
            found[path] = (kept[1], "", False)
    missing = [path for path in paths if path not in found]
    found.update(_read(missing, stamps, progress))
    if cache is not None and (missing or len(known) != len(found)):
        fresh: dict[str, tuple[_Stamp, bytes]] = {}
        for path, (blob, *_) in found.items():
            stamp = stamps[path]
            if blob is not None and stamp is not None:
                fresh[str(path)] = (stamp, blob)
        _store(cache, fresh)
    return found


def cache_of(root: Path) -> Path:
    """The file in which a project's summaries are kept: in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if home is None:
        on_mac = sys.platform == "darwin"
        home = str(Path.home() / ("Library/Caches" if on_mac else ".cache"))
    name = hashlib.blake2b(str(root).encode(errors="replace"), digest_size=12).hexdigest()
    return Path(home, "loopsentry", f"{name}.audit")


# the cache -----------------------------------------------------------------------------------


def _mark() -> tuple[Any, ...]:
    """What a cache must have been written by."""
    return ("loopsentry audit", FORM, sys.version_info[:3], loopsentry.__version__)


def _load(cache: Path) -> dict[str, tuple[_Stamp, bytes]]:
    try:
        with cache.open("rb") as file:
            mark, files = marshal.load(file)  # noqa: S302 - the user's own directory
        return files if mark == _mark() and isinstance(files, dict) else {}
    except (OSError, EOFError, ValueError, TypeError):
        return {}


def _store(cache: Path, files: dict[str, tuple[_Stamp, bytes]]) -> None:
    """Write the cache beside its place, then move it there: a reader sees all of it, or none."""
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache.parent, prefix=cache.stem)
        try:
            with os.fdopen(handle, "wb") as file:
                marshal.dump((_mark(), files), file)
            Path(name).replace(cache)
        except BaseException:
            Path(name).unlink()
            raise


def _stamp(path: Path) -> _Stamp | None:
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_size, told.st_mtime_ns, told.st_ino


# reading -------------------------------------------------------------------------------------


def _read(
    paths: list[Path], stamps: dict[Path, _Stamp | None], progress: Progress | None
) -> dict[Path, Outcome]:
    sizes = {path: (stamps[path] or (0,))[0] for path in paths}
    chunks = _chunks(paths, sizes)
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES, len(chunks))
    found: dict[Path, Outcome] = {}

    def take(chunk: list[Path], outcomes: Iterable[Outcome]) -> None:
        found.update(zip(chunk, outcomes, strict=True))
        if progress is not None:
            progress(len(found), len(paths))

    if processes > 1 and sys.executable and sum(sizes.values()) > _WORTH_PROCESSES:
        _read_elsewhere(chunks, processes, take)
    for chunk in chunks:
        if chunk[0] not in found:
            take(chunk, [read_file(str(path)) for path in chunk])
    return found


def _chunks(paths: list[Path], sizes: dict[Path, int]) -> list[list[Path]]:
    """The files in parts of about the same size; a long one is a part of its own."""
    chunks: list[list[Path]] = []
    room = 0
    for path in sorted(paths, key=lambda each: -sizes[each]):
        if room <= 0:
            chunks.append([])
            room = _CHUNK
        chunks[-1].append(path)
        room -= max(sizes[path], 1)
    return chunks


def _read_elsewhere(
    chunks: list[list[Path]],
    processes: int,
    take: Callable[[list[Path], Iterable[Outcome]], None],
) -> None:
    """Let other processes read; what one of them fails to is left to the caller.

    `multiprocessing` would import the caller's main module, which need not be guarded.
    """
    waiting: queue.SimpleQueue[list[Path]] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    done: queue.SimpleQueue[tuple[list[Path], list[Outcome]] | None] = queue.SimpleQueue()
    workers = [threading.Thread(target=_work, args=(waiting, done)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    ended = 0
    while ended < processes:
        result = done.get()
        if result is None:
            ended += 1
        else:
            take(*result)
    for worker in workers:
        worker.join()


def _work(
    waiting: queue.SimpleQueue[list[Path]],
    done: queue.SimpleQueue[tuple[list[Path], list[Outcome]] | None],
) -> None:
    """Hand the waiting parts to a process of its own, one after the other."""
    home = str(Path(loopsentry.__file__).parents[1])
    try:
        with subprocess.Popen(  # noqa: S603 - this interpreter, our own program
            [sys.executable, "-S", "-E", "-c", _WORKER, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None  # noqa: S101 - asked for above
            assert process.stdout is not None  # noqa: S101 - asked for above
            while not waiting.empty():
                chunk = waiting.get_nowait()
                marshal.dump([str(path) for path in chunk], process.stdin)
                process.stdin.flush()
                done.put((chunk, marshal.load(process.stdout)))  # noqa: S302 - our own process
            process.stdin.close()
    except (OSError, EOFError, ValueError, TypeError, queue.Empty):
        pass  # what is left is read in this process
    finally:
        done.put(None)
