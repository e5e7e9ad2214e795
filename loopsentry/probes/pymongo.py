"""pymongo's asynchronous client, which refuses another loop than its first one."""

from __future__ import annotations

from loopsentry._frames import raised_outside
from loopsentry.exceptions import type_name_of
from loopsentry.model import Reporter, Symptom
from loopsentry.registry import Registry, Undo

from ._clients import hear_made, sighter

PACKAGES = ("pymongo", "motor", "bson", "gridfs")
OPERATIONS = ("pymongo.asynchronous",)

# pymongo/asynchronous/mongo_client.py: _get_topology.
_TEXT = "Cannot use AsyncMongoClient in different event loop"

sight = sighter("pymongo.asynchronous.mongo_client", "AsyncMongoClient")


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate the client's refusal; nothing has been sent then."""
    if _TEXT not in text or not issubclass(type(exc), RuntimeError):
        return None
    quoted = raised_outside(exc, PACKAGES)
    return Symptom(
        kind="foreign-loop",
        library="pymongo",
        type=type_name_of(exc),
        text=_TEXT,
        quoted=quoted,
        sent=False,
        about=None if quoted else "client",
    )


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear where clients are made."""
    return hear_made(registry, "pymongo.asynchronous.mongo_client", "AsyncMongoClient")
