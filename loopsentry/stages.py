"""How far the work had come when it failed, read off the functions on the stack."""

from __future__ import annotations

from . import _frames
from ._frames import Site
from .model import COLLECT, Clue, Phase, Place, Stage

_CLEANUP = frozenset(
    {
        "aclose",
        "close",
        "close_all",
        COLLECT,
        "dispose",
        "invalidate",
        "release",
        "remove",
        "reset",
        "rollback",
        "terminate",
    }
)


def is_connecting(sites: list[Site]) -> bool:
    """Whether a connection was being taken out of its pool."""
    return any(site.code.co_name in ("_checkout", "_do_get", "checkout") for site in sites)


def stage_of(sites: list[Site], operation: str | None) -> Stage:
    """How far the database work had come, from the functions on the stack."""
    names = {site.code.co_name for site in sites}
    if names & {"_do_ping_w_event", "_async_ping"}:
        return "ping"
    if "_start_transaction" in names:
        return "begin"
    return "commit" if operation == "commit" else "statement"


def collected_at(sites: list[Site]) -> int | None:
    """Where on a stack the garbage collector gave a connection back (sqlalchemy/pool/base.py).

    What stands further out had only the processor when it happened, in whatever thread.
    """
    for index, site in enumerate(sites):
        if site.code.co_name == "_finalize_fairy":
            collected = _frames.variables_in(site.frame).get("is_gc_cleanup") is True
            return index if collected else None
    return None


def dropped_at(sites: list[Site], collected: int) -> Place | None:
    """The program's line that dropped the last reference or asked for a collection, if one did."""
    callers = (s for s in sites[collected + 1 :] if _frames.module_of(s.frame) != "weakref")
    caller = next(callers, None)
    return _frames.user_place([caller]) if caller is not None else None


def phase_of(operation: str | None, sites: list[Site], clue: Clue) -> Phase:
    """Whether something was being opened, used or tidied up."""
    if clue.cleanup or operation in _CLEANUP:
        return "cleanup"
    return "connect" if is_connecting(sites) or operation == "connect" else "use"
