"""Serves an export as a stream and asks for it once."""
import asyncio
import os
import socket

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

pool = None


async def lines(conn):
    for number in range(3):
        yield str(await conn.fetchval("select $1::int", number)) + "\n"


async def export(request):
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1, max_size=2)
    async with pool.acquire() as conn:
        return StreamingResponse(lines(conn))


app = Starlette(routes=[Route("/export", export)])


async def get(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /export HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    data = await reader.read()
    writer.close()
    return data.decode()


async def serve():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        task = asyncio.create_task(server.serve([sock]))
        while not server.started:
            await asyncio.sleep(0.02)
        answer = await get(sock.getsockname()[1])
        server.should_exit = True
        await task
        await pool.close()
    if "\n2\r\n" not in answer:
        print("stream broke")
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(serve())
