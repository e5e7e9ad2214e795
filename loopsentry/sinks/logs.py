"""The logger `loopsentry`: one record for each mistake, its facts as `extra` fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from loopsentry.model import Diagnosis
from loopsentry.renderers import json
from loopsentry.story import headline

logger = logging.getLogger("loopsentry")


class Logs:
    """Logs each diagnosis at INFO: the exception itself is the error, and is the program's."""

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Log the headline; handlers find the record in the attribute `loopsentry`."""
        del shown
        if logger.isEnabledFor(logging.INFO):
            logger.info("%s", headline(diagnosis), extra={"loopsentry": json.to_dict(diagnosis)})

    def close(self) -> None:
        """Nothing is held."""


def open_sink(_environment: Mapping[str, str]) -> Logs:
    """The logger is always there."""
    return Logs()
