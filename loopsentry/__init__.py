"""Names both event loops when an async engine is used on the wrong one, and gives the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .asgi import LoopSentryMiddleware
    from .explanation import explain
    from .inspection import on_signal, print_status, status
    from .installation import diagnose, install, subscribe, uninstall
    from .mismatch import LoopMismatchError
    from .model import Diagnosis
    from .pool import LoopLocalPool
    from .session import (
        AsyncSessionFactory,
        EngineNotChosenError,
        session_scope,
        session_scope_fresh,
    )
    from .snapshot import Status

__all__ = [
    "AsyncSessionFactory",
    "Diagnosis",
    "EngineNotChosenError",
    "LoopLocalPool",
    "LoopMismatchError",
    "LoopSentryMiddleware",
    "Status",
    "diagnose",
    "explain",
    "install",
    "on_signal",
    "print_status",
    "session_scope",
    "session_scope_fresh",
    "status",
    "subscribe",
    "uninstall",
]

# Where each public name lives: modules are imported when a name is first used, so that
# `import loopsentry` costs next to nothing and needs no other library.
_HOMES = {
    "AsyncSessionFactory": "session",
    "Diagnosis": "model",
    "EngineNotChosenError": "session",
    "LoopLocalPool": "pool",
    "LoopMismatchError": "mismatch",
    "LoopSentryMiddleware": "asgi",
    "Status": "snapshot",
    "diagnose": "installation",
    "explain": "explanation",
    "install": "installation",
    "load_ipython_extension": "ipython",
    "on_signal": "inspection",
    "print_status": "inspection",
    "session_scope": "session",
    "session_scope_fresh": "session",
    "status": "inspection",
    "subscribe": "installation",
    "uninstall": "installation",
    "unload_ipython_extension": "ipython",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'loopsentry' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
