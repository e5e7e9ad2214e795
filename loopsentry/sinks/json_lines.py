"""The file that `LOOPSENTRY_REPORT` names: one JSON object a line, appended."""

from __future__ import annotations

import os
from collections.abc import Mapping

from loopsentry.model import Diagnosis
from loopsentry.renderers import json


class JsonLines:
    """Appends each diagnosis to a file, in one write, so that processes may share it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - the program may change directory

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Append one record; the file is only the owner's to read."""
        del shown
        record = (json.render(diagnosis) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, record)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Nothing is held open."""


def open_sink(environment: Mapping[str, str]) -> JsonLines | None:
    """A file if the environment names one."""
    path = environment.get("LOOPSENTRY_REPORT")
    return JsonLines(path) if path else None
