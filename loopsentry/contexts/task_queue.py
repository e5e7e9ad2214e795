"""A job of a task queue other than Celery."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "task-queue"
RANK = 44
PACKAGES = ("rq", "dramatiq", "arq", "taskiq", "huey", "apscheduler", "procrastinate")
_MODULES = frozenset({"rq", "dramatiq", "arq", "taskiq", "huey", "apscheduler", "procrastinate"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the queue's frames around the loop."""
    if any(frame.module.partition(".")[0] in _MODULES for frame in stack):
        return Recognition(context=NAME)
    return None
