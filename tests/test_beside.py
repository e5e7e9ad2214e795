"""Other tools that watch failures: they keep working, and show what loopsentry found."""

from __future__ import annotations

import importlib

import pytest
from conftest import RunProgram

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, logging, os
SETUP
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])

async def work():
    async with engine.connect() as connection: await connection.execute(text("SELECT 1"))

def first(): asyncio.run(work())
def second(): asyncio.run(work())
first()
"""
INSTALL = "import loopsentry; loopsentry.install()\n"
UNCAUGHT = "second()\n"
LOGGED = "try: second()\nexcept Exception: {}.exception('it failed')\n"

SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport
class Shown(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        for each in event["exception"]["values"] if event else ():
            print("EVENT", each["type"], "[LS101]" in each["value"])
    def flush(self, *_, **__): pass
    def kill(self): pass
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Shown)
"""
SPANS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
def shown(span):
    return "".join(f"EVENT {e.attributes['exception.type']} "
                   f"{'[LS101]' in e.attributes['exception.stacktrace']}\\n" for e in span.events)
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=shown)))
trace.set_tracer_provider(provider)
"""

#: What sets a tool up, how the program fails, and what is needed.
TOOLS = {
    "sentry": (SENTRY, UNCAUGHT, "sentry_sdk"),
    "sentry's logs": (SENTRY, LOGGED.format("logging"), "sentry_sdk"),
    "rich": ("import rich.traceback; rich.traceback.install()", UNCAUGHT, "rich"),
    "rich's logs": (
        (
            "from rich.logging import RichHandler\n"
            "logging.basicConfig(handlers=[RichHandler(rich_tracebacks=True)])"
        ),
        LOGGED.format("logging"),
        "rich",
    ),
    "structlog": ("import structlog", LOGGED.format("structlog.get_logger()"), "structlog"),
    "structlog's JSON": (
        (
            "import structlog\nstructlog.configure(processors=["
            "structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()])"
        ),
        LOGGED.format("structlog.get_logger()"),
        "structlog",
    ),
    "loguru": ("from loguru import logger", LOGGED.format("logger"), "loguru"),
    "loguru.catch": ("from loguru import logger", "logger.catch(second)()\n", "loguru"),
    "better-exceptions": (
        "import better_exceptions; better_exceptions.hook()",
        UNCAUGHT,
        "better_exceptions",
    ),
    "OpenTelemetry": (
        SPANS,
        "with trace.get_tracer('app').start_as_current_span('request'): second()\n",
        "opentelemetry.sdk",
    ),
    "OpenTelemetry's instrumentation": (
        (
            "from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor\n"
            "from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor\n"
            "SQLAlchemyInstrumentor().instrument(); AsyncPGInstrumentor().instrument()"
        ),
        UNCAUGHT,
        "opentelemetry.instrumentation.sqlalchemy",
    ),
    "ddtrace": ("import ddtrace.auto", UNCAUGHT, "ddtrace"),
}
QUIET = {"DD_TRACE_ENABLED": "false", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_works_as_alone_and_shows_the_diagnosis(run_program: RunProgram, tool: str) -> None:
    """Installed before loopsentry or after it, a tool sees as many failures, and the diagnosis."""
    setup, failing, package = TOOLS[tool]
    try:
        importlib.import_module(package)
    except ImportError:
        pytest.skip(f"{package} is not installed")
    alone = run_program(PROGRAM.replace("SETUP", setup) + failing, under=False, env=QUIET)
    for both in (INSTALL + setup, f"{setup}\n{INSTALL}"):
        ended = run_program(PROGRAM.replace("SETUP", both) + failing, under=False, env=QUIET)
        assert ended.returncode == alone.returncode
        assert ended.output.count("EVENT ") == alone.output.count("EVENT ")
        assert "EVENT RuntimeError False" not in ended.output
        assert "[LS101]" in ended.output
        assert ended.output.count("help: ") >= ended.output.count("error[LS101]: ") > 0
        assert "[LS101]" not in alone.output


NESTED = """
import asyncio
SETUP
lock = asyncio.Lock()
async def take():
    async with lock: await asyncio.sleep(0)
async def twice(): await asyncio.gather(take(), take())
async def main(): asyncio.run(twice()); asyncio.run(twice()); print("nested")
asyncio.run(main())
new = asyncio.new_event_loop()
new.run_until_complete(twice())
"""


def test_nested_loops_that_are_let_run_are_no_mistake(run_program: RunProgram) -> None:
    """With nest_asyncio a loop inside a loop is nothing to tell; what crosses them still is."""
    pytest.importorskip("nest_asyncio")
    setup = "import nest_asyncio; nest_asyncio.apply()"
    for both in (f"{INSTALL}{setup}", f"{setup}\n{INSTALL}"):
        ended = run_program(NESTED.replace("SETUP", both), under=False)
        assert ended.stdout == "nested\n"
        assert "[LS104]" in ended.stderr
        assert "LS402" not in ended.output
