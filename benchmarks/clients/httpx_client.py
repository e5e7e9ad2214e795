"""A client of httpx."""

from __future__ import annotations

from typing import Any

import httpx

from ._http import serve

TITLE = "httpx client"
URL = serve()


async def make() -> Any:
    """Make a client."""
    return httpx.AsyncClient(trust_env=False)


async def use(client: Any) -> None:
    """Ask for a page."""
    await client.get(URL)


async def close(client: Any) -> None:
    """Close it."""
    await client.aclose()
