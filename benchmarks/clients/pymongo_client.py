"""A client of pymongo, which notices by itself, and needs no server for that."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pymongo
import pymongo.errors

TITLE = "pymongo client"


async def make() -> Any:
    """Make a client of a server that does not answer."""
    return pymongo.AsyncMongoClient("mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100)


async def use(client: Any) -> None:
    """Ask for an answer, and take none."""
    with suppress(pymongo.errors.ServerSelectionTimeoutError):
        await client.admin.command("ping")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
