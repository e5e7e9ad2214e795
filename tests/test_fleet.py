"""A fleet: web servers with several processes, Celery's workers, and one collector for all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from collecting import collector, failures_in
from mysql import free_port

pytestmark = pytest.mark.slow

SHOP = """
import asyncio, os, threading
import asyncpg
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
elsewhere = create_async_engine(os.environ["DATABASE_URL"])
lock = asyncio.Lock()
turn = threading.Lock()
state = {}

def start():
    state["meters"] = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(state["meters"])

def stop(): state["meters"].shutdown()

async def read(engine):
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))

async def share():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"].replace("+asyncpg", ""))
    try: await asyncio.gather(*(connection.execute("SELECT 1") for _ in range(2)))
    finally: await connection.close()

async def hold():
    async with lock: await asyncio.sleep(0.001)

async def hold_twice(): await asyncio.gather(hold(), hold())

def cross():
    with turn:  # one loop after the other: two living ones can crash asyncpg, watched or not
        asyncio.run(read(elsewhere))
"""

WEB = """
import asyncio
from contextlib import asynccontextmanager
import loopsentry, shop
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    loopsentry.install(sinks=["opentelemetry"])
    shop.start()
    await shop.hold_twice()
    yield
    shop.stop()

app = FastAPI(lifespan=lifespan)
app.add_middleware(loopsentry.LoopSentryMiddleware)

@app.get("/well")
async def well(): await shop.read(shop.engine)

@app.get("/LS101")
def crossing(): shop.cross()

@app.get("/LS201")
async def sharing(): await shop.share()

@app.get("/LS104")
def locking(): asyncio.run(shop.hold_twice())
"""

TASKS = """
import asyncio, os
import loopsentry, shop
from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown

loopsentry.install(sinks=["opentelemetry"])
folder = os.environ["QUEUE"]
app = Celery("tasks", broker="filesystem://", backend="file://" + folder)
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder}

@worker_process_init.connect
def begin(**_): shop.start()

@worker_process_shutdown.connect
def end(**_): shop.stop()

@app.task(name="LS101")
def crossing(): shop.cross()

@app.task(name="LS201")
def sharing(): asyncio.run(shop.share())
"""

ASKED = ["well", "LS101", "LS201", "LS104", "well"] * 40
SERVERS = {
    "uvicorn": ["uvicorn", "web:app", "--workers=2", "--log-level=error"],
    "gunicorn": ["gunicorn", "web:app", "-w2", "-kuvicorn_worker.UvicornWorker"],
}


@contextmanager
def fleet(
    folder: Path, command: Sequence[str], address: str, url: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with several processes that export to a collector, and end it politely."""
    for name, code in (("shop", SHOP), ("web", WEB), ("tasks", TASKS)):
        (folder / f"{name}.py").write_text(code)
    environment = os.environ | {
        "DATABASE_URL": url,
        "QUEUE": str(folder),
        "PYTHONPATH": str(folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    }
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=log, stderr=log
        ) as server,
    ):
        try:
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and SIGTERM are POSIX")
def test_what_a_server_s_processes_count_adds_up(server: str, tmp_path: Path, url: str) -> None:
    """Each request that failed by a mistake is counted once, whichever process answered it."""
    pytest.importorskip(SERVERS[server][0])
    port = free_port()
    where = ["-b", f"127.0.0.1:{port}"] if server == "gunicorn" else ["--port", str(port)]
    base = f"http://127.0.0.1:{port}"
    with (
        collector() as (address, bodies),
        fleet(tmp_path, [*SERVERS[server], *where], address, url),
        httpx.Client(base_url=base, timeout=30, headers={"Connection": "close"}) as client,
    ):
        wait_for(client)
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda path: (path, client.get(path).status_code), ASKED)
            told = Counter(answers)
    failed = {path: count for (path, status), count in told.items() if status == 500}
    assert failed.pop("LS101") > 5
    assert failed == {"LS201": 40, "LS104": 40}, (tmp_path / "log").read_text()
    failed["LS101"] = told["LS101", 500]
    assert failures_in(bodies) == failed


def wait_for(client: httpx.Client) -> None:
    """Wait until a server answers."""
    for _ in range(150):
        try:
            client.get("/well")
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the server did not start")


SEND = """
import collections, sys
import tasks
sent = [(task.name, task.delay()) for _ in range(20) for task in (tasks.crossing, tasks.sharing)]
failed = collections.Counter()
for name, result in sent:
    try: result.get(timeout=60)
    except Exception: failed[name] += 1
print(*(f"{name}={count}" for name, count in sorted(failed.items())))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Celery's prefork pool is POSIX")
def test_what_celery_s_workers_count_adds_up(tmp_path: Path, url: str) -> None:
    """Each task that failed by a mistake is counted once, whichever worker ran it."""
    pytest.importorskip("celery")
    command = ["celery", "-A", "tasks", "worker", "--concurrency=2", "--loglevel=error"]
    with (
        collector() as (address, bodies),
        fleet(tmp_path, command, address, url),
    ):
        environment = os.environ | {"QUEUE": str(tmp_path), "DATABASE_URL": url}
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SEND],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    log = (tmp_path / "log").read_text()
    assert ended.returncode == 0, ended.stderr + log
    failed = {
        name: int(count) for name, count in (each.split("=") for each in ended.stdout.split())
    }
    assert failed["LS201"] == 20, log
    assert failed["LS101"] > 3, log
    assert failures_in(bodies) == failed
