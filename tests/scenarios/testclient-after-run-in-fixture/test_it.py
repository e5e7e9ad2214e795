"""A fixture makes the tables with asyncio.run, then TestClient calls the application."""

import asyncio
import os
import warnings

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about the release of httpx
    from starlette.testclient import TestClient

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("://", "+asyncpg://", 1))


async def create():
    async with engine.begin() as connection:
        await connection.execute(text("create temporary table things (id int)"))


async def home(request):
    async with engine.connect() as session:
        found = await session.scalar(text("select 42"))
    return PlainTextResponse(str(found))


app = Starlette(routes=[Route("/", home)])


@pytest.fixture(scope="session", autouse=True)
def tables():
    asyncio.run(create())


def test_home():
    with TestClient(app) as client:
        assert client.get("/").text == "42"
