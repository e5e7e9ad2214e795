"""pymongo's asynchronous client, which refuses another loop than its first one."""

from __future__ import annotations

from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

from ._clients import hear_made, reader, sighter

PACKAGES = ("pymongo", "motor", "bson", "gridfs")
OPERATIONS = ("pymongo.asynchronous",)

_MODULE = "pymongo.asynchronous.mongo_client"

# pymongo/asynchronous/mongo_client.py, _get_topology: before anything is sent.
read = reader("Cannot use AsyncMongoClient in different event loop", PACKAGES, sent=False)
sight = sighter(_MODULE, "AsyncMongoClient")


def attach(_report: Reporter, registry: Registry) -> Undo:
    """Hear where clients are made."""
    return hear_made(registry, _MODULE, "AsyncMongoClient")
