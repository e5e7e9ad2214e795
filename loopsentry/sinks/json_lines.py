"""The file that `LOOPSENTRY_REPORT` names: one JSON object a line, appended."""

from __future__ import annotations

import os
from collections.abc import Mapping

from loopsentry.model import Diagnosis
from loopsentry.renderers import json


class JsonLines:
    """Appends each diagnosis to a file, in one write, so that processes may share it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Append one record; the file is only the owner's to read.

        A record that could be written only in part (a full disk) is ended with its line, so that
        the next one stands on a line of its own. A FIFO that nobody reads is refused, not waited
        for: opening it without `O_NONBLOCK` would hold the program up for ever.
        """
        del shown
        record = (json.render(diagnosis) + "\n").encode("ascii")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(self.path, flags, 0o600)
        try:
            written = os.write(descriptor, record)
            if written < len(record):
                os.write(descriptor, b"\n")
                raise OSError(f"only {written} of {len(record)} bytes of a record were written")
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Nothing is held open."""


def open_sink(environment: Mapping[str, str]) -> JsonLines | None:
    """A file if the environment names one; the program may change or remove its directory later."""
    path = environment.get("LOOPSENTRY_REPORT")
    if not path:
        return None
    try:
        return JsonLines(os.path.abspath(path))  # noqa: PTH100 - no link is to be followed
    except OSError:  # the working directory is gone already
        return JsonLines(path)
