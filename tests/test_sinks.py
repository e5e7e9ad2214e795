"""Where diagnoses go: OpenTelemetry and Prometheus, asked for by name."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from collecting import collector
from conftest import RunProgram

import loopsentry
from loopsentry import installation

FAILING = """
import asyncio, json, os, sys
import loopsentry
async def take():
    async with lock: await asyncio.sleep(0)
async def twice(): await asyncio.gather(take(), take())
def fail(times=3):
    global lock
    lock = asyncio.Lock()
    asyncio.run(twice())
    for _ in range(times):
        try: asyncio.run(twice())
        except RuntimeError as exc: loopsentry.installation.current().examiner.report(exc)
"""

TELEMETRY = (
    FAILING
    + """
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

loopsentry.install(sinks=["opentelemetry"])
spans, logs = InMemorySpanExporter(), export.InMemoryLogRecordExporter()
reader = InMemoryMetricReader()
tracers, loggers = TracerProvider(), LoggerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
loggers.add_log_record_processor(export.SimpleLogRecordProcessor(logs))
trace.set_tracer_provider(tracers); _logs.set_logger_provider(loggers)
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

if "outside" in sys.argv: fail()
else:
    with trace.get_tracer("app").start_as_current_span("request"): fail()
events = [dict(event.attributes) for span in spans.get_finished_spans() for event in span.events]
records = [record.log_record for record in logs.get_finished_logs()]
points = [point for resource in reader.get_metrics_data().resource_metrics
          for scope in resource.scope_metrics if scope.scope.name == "loopsentry"
          for metric in scope.metrics
          for point in metric.data.data_points]
print(json.dumps({
    "events": events,
    "logs": [[each.severity_text, each.body, dict(each.attributes)] for each in records],
    "counted": [[point.value, dict(point.attributes)] for point in points],
}))
"""
)


@pytest.mark.parametrize(
    ("signal", "where", "events", "logs"),
    [
        ("", "inside", 1, 0),
        ("logs", "inside", 0, 1),
        ("logs/dup", "inside", 1, 1),
        ("", "outside", 0, 1),
    ],
)
def test_telemetry_gets_each_mistake_once_and_counts_them(
    run_program: RunProgram, signal: str, where: str, events: int, logs: int
) -> None:
    """An exception goes to the signal that the environment opts for; each occurrence is counted."""
    ended = run_program(
        TELEMETRY, where, under=False, env={"OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN": signal}
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (len(told["events"]), len(told["logs"])) == (events, logs)
    for attributes in (*told["events"], *(each[2] for each in told["logs"])):
        assert attributes["loopsentry.code"] == "LS104"
        assert attributes["exception.type"] == "builtins.RuntimeError"
        assert attributes["code.function.name"] == "take"
        assert attributes["loopsentry.fix"] == "create-in-loop"
        assert "asyncio.run in " in attributes["loopsentry.owner_loop"]
    for severity, body, _ in told["logs"]:
        assert severity == "ERROR"
        assert body.startswith("[LS104] asyncio.Lock is bound to another event loop")
    assert [count for count, _ in told["counted"]] == [3]
    assert told["counted"][0][1]["loopsentry.cause"] == "foreign-primitive"


EXPORTING = (
    FAILING
    + """
from opentelemetry import _logs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=sys.argv[1])))
_logs.set_logger_provider(provider)
loopsentry.install()
fail()
provider.shutdown()
"""
)


def test_a_collector_gets_the_mistake(run_program: RunProgram) -> None:
    """What is exported over OTLP arrives at a collector, once for a mistake."""
    pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

    with collector() as (address, bodies):
        ended = run_program(
            EXPORTING,
            f"{address}/v1/logs",
            under=False,
            env={"LOOPSENTRY_SINKS": "opentelemetry", "OTEL_EXPORTER_OTLP_COMPRESSION": "none"},
        )
    assert ended.returncode == 0, ended.stderr
    requests = map(logs_service_pb2.ExportLogsServiceRequest.FromString, bodies)
    records = [
        record
        for request in requests
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    assert len(records) == 1
    attributes = {each.key: each.value.string_value for each in records[0].attributes}
    assert attributes["loopsentry.code"] == "LS104"


METRICS = (
    FAILING
    + """
from prometheus_client import generate_latest
def shown(): return [line for line in generate_latest().decode().splitlines()
                     if line.startswith("loopsentry_failures_total")]
for _ in range(2):
    with loopsentry.install(sinks=["prometheus"]): fail(); print(*shown())
    print(*shown())
"""
)


def test_prometheus_counts_by_cause(run_program: RunProgram) -> None:
    """Each occurrence is counted by cause, and the counter leaves its registry at uninstall."""
    shown = run_program(METRICS, under=False).stdout.splitlines()
    line = (
        'loopsentry_failures_total{cause="foreign-primitive",code="LS104",'
        'context="asyncio-run",engine="",severity="error"} 3.0'
    )
    assert shown == [line, "", line, ""]


def test_a_sink_whose_package_is_missing_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package there is a warning with the command that installs it, and no failure."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with caplog.at_level(logging.WARNING, "loopsentry"), loopsentry.install(sinks=["prometheus"]):
        pass
    assert "pip install 'sqlalchemy-loopsentry[prometheus]'" in caplog.text


def test_a_sink_that_does_not_exist_is_refused(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`install()` refuses a wrong name; the environment's gets a warning, and the rest are used."""
    with pytest.raises(ValueError, match="'statsd' is not one of opentelemetry, prometheus"):
        loopsentry.install(sinks=["statsd"])
    monkeypatch.setenv("LOOPSENTRY_SINKS", "statsd, prometheus")
    with caplog.at_level(logging.WARNING, "loopsentry"), loopsentry.install() as handle:
        assert "sinks=('prometheus',)" in repr(handle)
    assert "LOOPSENTRY_SINKS=statsd is not valid" in caplog.text


def test_a_sink_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink's failure while it counts is logged once, and the others hear all the same."""

    class Broken:
        """Fails whatever it is asked."""

        def send(self, *_: Any, **__: Any) -> None:
            """Fail."""
            raise ZeroDivisionError

        tally = send

        def close(self) -> None:
            """Nothing is held."""

    told: list[object] = []
    with loopsentry.install():
        installed = installation.current()
        assert installed is not None
        monkeypatch.setattr(installed.examiner, "sinks", [Broken()])
        undo = loopsentry.subscribe(told.append)
        installed.examiner.report(RuntimeError("Event loop is closed"))
        undo()
    assert len(told) == 1
