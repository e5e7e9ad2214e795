"""A smoke test: the server in a thread, one request, then a look into the database."""
import asyncio
import os
import socket
import threading
import time
import urllib.request

import uvicorn
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
sock = socket.socket()
sock.bind(("127.0.0.1", 0))


async def count():
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_roles"))


async def roles(request):
    return PlainTextResponse(str(await count()))


server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", roles)]), log_level="warning"))


def serve():
    server.run([sock])


def check():
    print("roles", asyncio.run(count()))


if __name__ == "__main__":
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    print("served", urllib.request.urlopen(f"http://127.0.0.1:{sock.getsockname()[1]}/").status)
    try:
        check()
    finally:
        server.should_exit = True
        thread.join(5)
