"""An engine of SQLAlchemy's; each file names a driver."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

#: As MySQL has it: an answer that is there at once is read without waiting for it.
SLEEP = "select sleep(0.1)"


def maker(url: str, *, sleep: str = "select 1") -> dict[str, Any]:
    """The functions of a client that is an engine."""

    async def make() -> Any:
        """Make an engine with one connection."""
        return create_async_engine(url)

    async def query(session: AsyncSession) -> None:
        """Ask for a row."""
        await session.execute(text(sleep))

    async def use(client: Any) -> None:
        """Use a session."""
        async with AsyncSession(client) as session:
            await query(session)

    async def close(client: Any) -> None:
        """Dispose of it."""
        await client.dispose()

    return {"make": make, "use": use, "close": close, "query": query}
