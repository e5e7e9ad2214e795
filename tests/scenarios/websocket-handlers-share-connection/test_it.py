import asyncio
import os

import asyncpg
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient

app = FastAPI()


async def tick(conn, websocket):
    while True:
        await websocket.send_json({"tick": str(await conn.fetchval("select now() from pg_sleep(0.2)"))})


@app.websocket("/live")
async def live(websocket: WebSocket):
    await websocket.accept()
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    ticker = asyncio.create_task(tick(conn, websocket))
    try:
        async for question in websocket.iter_text():
            await websocket.send_json({"answer": await conn.fetchval("select length($1)", question)})
    finally:
        ticker.cancel()
        conn.terminate()


def test_answer():
    with TestClient(app) as client, client.websocket_connect("/live") as websocket:
        websocket.receive_json()
        websocket.send_text("hello")
        while "answer" not in (message := websocket.receive_json()):
            pass
        assert message == {"answer": 5}
