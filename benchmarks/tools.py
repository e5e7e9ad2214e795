"""The tools that are measured beside each other; each wraps the ASGI application it is given.

None of them sends anything: what they collect ends in a transport or exporter that drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .measures import ASGIApp


def nothing(app: ASGIApp) -> ASGIApp:
    """Install nothing."""
    return app


def loopsentry(app: ASGIApp) -> ASGIApp:
    """Install loopsentry, and put its middleware in front of the application."""
    import loopsentry

    loopsentry.install()
    return loopsentry.LoopSentryMiddleware(app)


def sentry(app: ASGIApp, *, traces: float | None = None) -> ASGIApp:
    """Install Sentry's SDK with what it enables by itself, for errors only."""
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        """Drops what it gets."""

        def capture_envelope(self, envelope: Any) -> None:
            """Drop it."""

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Nowhere, traces_sample_rate=traces)
    wrapped: ASGIApp = SentryAsgiMiddleware(app)
    return wrapped


def sentry_traces(app: ASGIApp) -> ASGIApp:
    """Install Sentry's SDK for errors and for a trace of each request."""
    return sentry(app, traces=1.0)


def opentelemetry(app: ASGIApp) -> ASGIApp:
    """Install OpenTelemetry's instrumentation of SQLAlchemy, asyncpg and ASGI, for traces."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        """Drops what it gets."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            """Drop it."""
            del spans
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    SQLAlchemyInstrumentor().instrument()
    AsyncPGInstrumentor().instrument()
    wrapped: ASGIApp = OpenTelemetryMiddleware(app)
    return wrapped


TOOLS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "nothing": nothing,
    "loopsentry": loopsentry,
    "sentry": sentry,
    "sentry-traces": sentry_traces,
    "opentelemetry": opentelemetry,
}
