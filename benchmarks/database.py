"""A PostgreSQL to measure against."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from loopsentry.demo import database


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@contextmanager
def running() -> Iterator[str]:
    """Use the server that `LOOPSENTRY_TEST_URL` names, or start one for as long as this lasts."""
    given = os.environ.get("LOOPSENTRY_TEST_URL")
    if given:
        known = make_url(given).set(drivername="postgresql+asyncpg")
        yield known.render_as_string(hide_password=False)
        return
    with tempfile.TemporaryDirectory(prefix="ls-") as folder, database.running(Path(folder)) as url:
        yield url
