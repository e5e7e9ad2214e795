"""asgiref's AsyncToSync (Django, Flask's async views): a loop for each outermost call."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "asgiref"
RANK = 40
PACKAGES = ("asgiref", "django", "flask", "werkzeug")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise a loop that AsyncToSync started."""
    if any(frame.module == "asgiref.sync" for frame in stack):
        return Recognition(context=NAME, runner="AsyncToSync")
    return None
