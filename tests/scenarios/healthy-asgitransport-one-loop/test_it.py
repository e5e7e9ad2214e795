import os

import httpx
import pytest_asyncio
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
app = FastAPI()


@app.post("/names/{name}")
async def add(name: str):
    try:
        async with engine.begin() as conn:
            await conn.execute(text("insert into asgi_names values (:n)"), {"n": name})
    except IntegrityError:
        raise HTTPException(409, "taken") from None
    return {"added": name}


@pytest_asyncio.fixture(scope="session", autouse=True)
async def table():
    async with engine.begin() as conn:
        await conn.execute(text("drop table if exists asgi_names"))
        await conn.execute(text("create table asgi_names (name text primary key)"))
    yield
    await engine.dispose()


@pytest_asyncio.fixture
async def client():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_add(client):
    assert (await client.post("/names/ada")).status_code == 200


async def test_taken(client):
    assert (await client.post("/names/ada")).status_code == 409
    async with engine.connect() as conn:
        assert await conn.scalar(text("select count(*) from asgi_names")) == 1
