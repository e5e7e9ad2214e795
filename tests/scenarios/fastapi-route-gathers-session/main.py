"""The route of a start page, asked in process by httpx."""
import asyncio
import os

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
Session = async_sessionmaker(engine)
app = FastAPI()


async def get_session():
    async with Session() as session:
        yield session


async def count_roles(session):
    return await session.scalar(text("select count(*) from pg_roles"))


async def count_types(session):
    return await session.scalar(text("select count(*) from pg_type"))


@app.get("/")
async def start_page(session: AsyncSession = Depends(get_session)):
    roles, types = await asyncio.gather(count_roles(session), count_types(session))
    return {"roles": roles, "types": types}


async def browse():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://start") as client:
        answer = await client.get("/")
        print(answer.status_code, answer.json())


if __name__ == "__main__":
    asyncio.run(browse())
