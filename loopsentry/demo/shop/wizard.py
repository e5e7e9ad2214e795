"""The set-up wizard: makes the first administrator before the server starts."""

import asyncio

from sqlalchemy import text

from .db import session_maker


async def create_admin(email: str) -> None:
    """Make the table and its first row."""
    async with session_maker() as session:
        await session.execute(text("CREATE TABLE IF NOT EXISTS admins (email text PRIMARY KEY)"))
        await session.execute(
            text("INSERT INTO admins VALUES (:email) ON CONFLICT DO NOTHING"), {"email": email}
        )
        await session.commit()


def run_wizard() -> None:
    """Run the wizard to its end, on an event loop of its own."""
    asyncio.run(create_admin("anne@example.org"))
