"""The message as plain ASCII, about 80 columns wide: notes, log files, screen readers."""

from __future__ import annotations

from loopsentry.model import Diagnosis
from loopsentry.story import WIDTH, tell


def render(
    diagnosis: Diagnosis, *, verbose: bool = False, width: int = WIDTH, beside: bool = False
) -> str:
    """Render the message; paths, codes and labels are never broken.

    Text of others (the original message, names) that is not ASCII is escaped, so that any
    terminal and any log file can hold it.
    """
    lines = tell(diagnosis, verbose=verbose, width=width, beside=beside)
    text = "\n".join(line.text for line in lines)
    return text.encode("ascii", "backslashreplace").decode("ascii")
