"""How far the work had come when it failed, read off the functions on the stack."""

from __future__ import annotations

from . import _frames
from ._frames import Site
from .model import Clue, Phase, Stage

_CLEANUP = frozenset(
    {
        "aclose",
        "close",
        "close_all",
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


def is_collected(sites: list[Site]) -> bool:
    """Whether the garbage collector gave the connection back (sqlalchemy/pool/base.py)."""
    return any(
        site.code.co_name == "_finalize_fairy"
        and _frames.variables_in(site.frame).get("is_gc_cleanup") is True
        for site in sites
    )


def phase_of(operation: str | None, sites: list[Site], clue: Clue) -> Phase:
    """Whether something was being opened, used or tidied up."""
    if clue.cleanup or operation in _CLEANUP:
        return "cleanup"
    return "connect" if is_connecting(sites) or operation == "connect" else "use"
