"""A session of aiohttp."""

from __future__ import annotations

from typing import Any

import aiohttp

from ._http import serve

TITLE = "aiohttp session"
URL = serve()


async def make() -> Any:
    """Make a session."""
    return aiohttp.ClientSession()


async def use(client: Any) -> None:
    """Ask for a page."""
    async with client.get(URL) as answer:
        await answer.text()


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
