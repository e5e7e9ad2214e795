"""OpenTelemetry: an exception event on the span at work, or a log record; and a counter.

Opened where it is asked for by name. Only the API is used: where a program has set up no SDK,
nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopsentry.model import Diagnosis, LoopInfo
from loopsentry.story import headline

OPTIONAL = True

#: Where exceptions go: logs, both while a team moves over, or events of spans (the conventions'
#: docs/exceptions/exceptions-spans.md).
_OPT_IN = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
_LOGS, _BOTH = "logs", "logs/dup"


class Telemetry:
    """Sends each mistake once, and counts each occurrence.

    Args:
        signal: `logs`, `logs/dup` or anything else, as the environment variable has it.
    """

    def __init__(self, signal: str) -> None:
        from opentelemetry import _logs, metrics, trace

        self.signal = signal
        self.span_at_work = trace.get_current_span
        self.logger = _logs.get_logger("loopsentry")
        self.severities: Any = _logs.SeverityNumber
        self.counter = metrics.get_meter("loopsentry").create_counter(
            "loopsentry.failures",
            unit="{failure}",
            description="Failures that loopsentry explained, by cause",
        )

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Add an event to the span that is recording, or emit a log record."""
        del shown
        attributes = _attributes_of(diagnosis)
        span = self.span_at_work()
        if span.is_recording() and self.signal != _LOGS:
            span.add_event("exception", attributes)
            if self.signal != _BOTH:
                return
        level = "ERROR" if diagnosis.severity == "error" else "WARN"
        self.logger.emit(
            severity_number=self.severities[level],
            severity_text=level,
            body=headline(diagnosis),
            attributes=attributes,
            event_name="loopsentry.diagnosis",
        )

    def tally(self, diagnosis: Diagnosis) -> None:
        """Count one occurrence."""
        counted = ("cause", "code", "context", "severity")
        self.counter.add(1, {f"loopsentry.{name}": getattr(diagnosis, name) for name in counted})

    def close(self) -> None:
        """Nothing is held: the program's own providers go on."""


def _attributes_of(diagnosis: Diagnosis) -> dict[str, str | int]:
    """What is known, in the names of the semantic conventions and below `loopsentry.`."""
    place, original = diagnosis.used_at, diagnosis.original
    told: dict[str, str | int | None] = {
        "exception.type": original.type if original is not None else None,
        "exception.message": original.message if original is not None else None,
        "code.file.path": place.file if place is not None else None,
        "code.line.number": place.line if place is not None else None,
        "code.function.name": place.function if place is not None else None,
        "loopsentry.id": diagnosis.id,
        "loopsentry.code": diagnosis.code,
        "loopsentry.cause": diagnosis.cause,
        "loopsentry.certainty": diagnosis.certainty,
        "loopsentry.severity": diagnosis.severity,
        "loopsentry.context": diagnosis.context,
        "loopsentry.headline": headline(diagnosis),
        "loopsentry.owner_loop": _name_of(diagnosis.owner_loop),
        "loopsentry.current_loop": _name_of(diagnosis.current_loop),
        "loopsentry.fix": diagnosis.fixes[0].id if diagnosis.fixes else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _name_of(loop: LoopInfo | None) -> str | None:
    if loop is None:
        return None
    place = loop.started_by
    starter = f" in {place.file}:{place.line} {place.function}" if place is not None else ""
    return f"{loop.runner or loop.kind}{starter}, {loop.state}"


def open_sink(environment: Mapping[str, str]) -> Telemetry:
    """Use the API's global providers, whenever the program sets them."""
    return Telemetry(environment.get(_OPT_IN, "").strip().lower())
