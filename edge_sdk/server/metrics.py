"""Metrics of the server for Prometheus: those of its streams, and of what is HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from edge_sdk.sinks.metrics import StreamMetrics

_DELAYS_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class ServerMetrics:
    """One registry; nothing in it names a patient or a recording. Every stream has a sink of ``of_streams``.

    Parameters
    ----------
    about
        As of :class:`~edge_sdk.sinks.metrics.StreamMetrics`.
    """

    def __init__(self, about: Callable[[], Mapping[str, str]] = dict) -> None:
        self.of_streams = StreamMetrics(about)
        registry = self.of_streams.registry
        self.requests = Counter("stetho_http_responses", "Responses by status.", ["status"], registry=registry)
        self.request_s = Histogram("stetho_http_seconds", "Time to the head of a response.", registry=registry)
        self.refused = Counter("stetho_refused", "Refused requests by status.", ["status"], registry=registry)
        self.connections = Gauge("stetho_connections", "Open connections.", registry=registry)
        self.cut = Counter("stetho_connections_cut", "Connections that were cut.", ["reason"], registry=registry)
        self.viewers = Gauge("stetho_live_viewers", "Open live pages.", registry=registry)
        self.dropped = Counter("stetho_clients_dropped", "Clients dropped: they did not read.", registry=registry)
        self.delay = Histogram(
            "stetho_frame_seconds",
            "From the arrival of a stream's frame until it is computed.",
            registry=registry,
            buckets=_DELAYS_S,
        )
        self.uploads = Counter("stetho_uploads", "Uploaded files by result.", ["result"], registry=registry)
        self.corrections = Counter("stetho_corrections", "Corrections by action.", ["action"], registry=registry)

    def text(self) -> bytes:
        """The page for Prometheus."""
        return self.of_streams.text()
