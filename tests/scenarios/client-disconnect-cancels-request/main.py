"""A long-lived session serves the requests of one conversation; a request is cancelled."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)


class Conversation:
    def __init__(self, session):
        self.session = session

    async def search(self):
        return await self.session.scalar(text("select 'found' from pg_sleep(3)"))

    async def remember(self):
        return await self.session.scalar(text("select 'remembered'"))


async def converse():
    async with Session() as session:
        conversation = Conversation(session)
        request = asyncio.create_task(conversation.search())
        await asyncio.sleep(0.3)
        request.cancel()
        await asyncio.wait([request])
        print("client left")
        print(await conversation.remember())


if __name__ == "__main__":
    asyncio.run(converse())
