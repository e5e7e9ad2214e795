"""A sign-up route that writes its audit line in a background task."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def audit(conn, name):
    await conn.execute(text("select cast(:n as text)"), {"n": name})


async def sign_up(request):
    async with engine.connect() as conn:
        await conn.execute(text("select 1"))
        return JSONResponse({"ok": True}, background=BackgroundTask(audit, conn, "ada"))


app = Starlette(routes=[Route("/sign-up", sign_up)])


async def ask():
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            print("answered", message["status"])

    scope = {"type": "http", "method": "GET", "path": "/sign-up", "headers": [], "query_string": b"", "http_version": "1.1"}
    await app(scope, receive, send)


if __name__ == "__main__":
    asyncio.run(ask())
