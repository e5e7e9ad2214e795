"""A handler that a serverless runtime calls."""

from __future__ import annotations

from loopsentry.model import Recognition, Stack

NAME = "serverless"
RANK = 35
PACKAGES = ("awslambdaric", "functions_framework", "mangum", "azure")
_MODULES = frozenset({"awslambdaric", "functions_framework", "mangum", "azure_functions_worker"})


def recognise(stack: Stack) -> Recognition | None:
    """Recognise the runtime's frames around the loop, or AWS's name for what it calls."""
    if any(frame.module.partition(".")[0] in _MODULES for frame in stack):
        return Recognition(context=NAME)
    if any(frame.user and frame.function == _HANDLER for frame in stack):
        return Recognition(context=NAME)
    return None


_HANDLER = "lambda_handler"
