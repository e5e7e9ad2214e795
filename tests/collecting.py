"""A collector of what programs export over OTLP."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Take what is exported over HTTP, as a collector does."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        """Answers that all is well."""

        def do_POST(self) -> None:
            """Keep the body."""
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def failures_in(bodies: list[bytes]) -> Counter[str]:
    """How many failures that reached a program the counters tell of, by code.

    Each export has what came since the one before (delta temporality), so that they add up.
    """
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2

    counted: Counter[str] = Counter()
    requests = map(metrics_service_pb2.ExportMetricsServiceRequest.FromString, bodies)
    scopes = (
        scope
        for request in requests
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
    )
    points = (
        point
        for scope in scopes
        if scope.scope.name == "loopsentry"
        for metric in scope.metrics
        for point in metric.sum.data_points
    )
    for point in points:
        told = {each.key: each.value.string_value for each in point.attributes}
        if told["loopsentry.severity"] == "error":
            counted[told["loopsentry.code"]] += point.as_int
    return counted
