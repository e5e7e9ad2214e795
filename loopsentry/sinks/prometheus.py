"""Prometheus: how often each cause was met, in the default registry of prometheus-client.

Opened where it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from loopsentry.model import Diagnosis

OPTIONAL = True


class Metrics:
    """Counts occurrences as `loopsentry_failures_total`, by cause, context and engine."""

    def __init__(self) -> None:
        from prometheus_client import REGISTRY, Counter

        self.leave = REGISTRY.unregister
        self.counter = Counter(
            "loopsentry_failures",
            "Failures that loopsentry explained",
            ["code", "cause", "severity", "context", "engine"],
        )

    def send(self, diagnosis: Diagnosis, *, shown: bool) -> None:
        """Nothing: what happened is told elsewhere, how often is counted here."""

    def tally(self, diagnosis: Diagnosis) -> None:
        """Count one occurrence; an engine is named by its variable, else by its driver."""
        engine = diagnosis.engine
        name = (engine.variable or engine.driver) if engine is not None else ""
        told = (diagnosis.code, diagnosis.cause, diagnosis.severity, diagnosis.context)
        self.counter.labels(*told, name).inc()

    def close(self) -> None:
        """Leave the registry, so that it may be entered again."""
        self.leave(self.counter)


def open_sink(_environment: Mapping[str, str]) -> Metrics:
    """Register the counter."""
    return Metrics()
