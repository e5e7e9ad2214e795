"""A MariaDB of the system's package, on loopback and in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from secrecy import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

START = f"""
create database shop;
create user 'shop'@'127.0.0.1' identified by '{PASSWORD}';
create user 'shop'@'localhost' identified by '{PASSWORD}';
grant all on shop.* to 'shop'@'127.0.0.1';
grant all on shop.* to 'shop'@'localhost';
"""
SECONDS = 60


def find() -> tuple[str, str] | None:
    """Find the server and the program that makes its folder, None where they are not installed."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    server = shutil.which("mariadbd", path=path)
    maker = shutil.which("mariadb-install-db", path=path)
    return (server, maker) if server and maker else None


@contextmanager
def running(server: str, maker: str) -> Iterator[str]:
    """Start a server, give its `mysql://` URL, and end it."""
    with tempfile.TemporaryDirectory(prefix="mysql") as name:
        folder = Path(name)
        # As root it drops to nobody unless it is told that root is meant.
        user = ["--user=root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        data = f"--datadir={folder / 'data'}"
        normal = "--auth-root-authentication-method=normal"
        subprocess.run(
            [maker, "--no-defaults", data, normal, *user], check=True, capture_output=True
        )
        (folder / "start.sql").write_text(START.lstrip(), "utf-8")
        port = free_port()
        options = [
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}",
            f"--init-file={folder / 'start.sql'}",
        ]
        with subprocess.Popen(
            [server, "--no-defaults", data, *options, *user],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _await(port)
                yield f"mysql://shop:{PASSWORD}@127.0.0.1:{port}/shop"
            finally:
                process.terminate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _await(port: int) -> None:
    """Wait until the server listens; it has run its first statements by then."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
