"""The body of a Celery task."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "celery"
RANK = 45
PACKAGES = ("celery", "billiard", "kombu", "vine")


def recognise(stack: Stack) -> Recognition | None:
    """Recognise a task body below Celery's own frames."""
    if any(frame.module.startswith("celery.app.") for frame in stack):
        return Recognition(context=NAME, framework={"name": "celery"})
    return None
