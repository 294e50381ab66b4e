"""Counters of the server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCIES_S = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


class ServerMetrics:
    """Counters in a registry of their own; nothing in them names a patient or a recording."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._registry = registry
        self.requests = Counter("stetho_http_responses", "Responses by status.", ["status"], registry=registry)
        self.request_s = Histogram("stetho_http_seconds", "Time to the head of a response.", registry=registry)
        self.refused = Counter("stetho_refused", "Refused requests by status.", ["status"], registry=registry)
        self.connections = Gauge("stetho_connections", "Open connections.", registry=registry)
        self.cut = Counter("stetho_connections_cut", "Connections that were cut.", ["reason"], registry=registry)
        self.streams = Gauge("stetho_streams", "Open streams.", registry=registry)
        self.viewers = Gauge("stetho_live_viewers", "Open live pages.", registry=registry)
        self.dropped = Counter("stetho_clients_dropped", "Clients dropped: they did not read.", registry=registry)
        self.samples = Counter("stetho_samples", "Samples received on streams.", registry=registry)
        self.lost = Counter("stetho_lost_samples", "Samples lost on streams.", registry=registry)
        self.cycles = Counter("stetho_cycles", "Respiratory cycles by label.", ["label"], registry=registry)
        self.latency = Histogram(
            "stetho_cycle_latency_seconds",
            "From the arrival of the last sample that a cycle needed to its event.",
            registry=registry,
            buckets=_LATENCIES_S,
        )
        self.delay = Histogram(
            "stetho_frame_seconds",
            "From the arrival of a stream's frame until it is computed.",
            registry=registry,
            buckets=_LATENCIES_S,
        )
        self.uploads = Counter("stetho_uploads", "Uploaded files by result.", ["result"], registry=registry)
        self.corrections = Counter("stetho_corrections", "Corrections by action.", ["action"], registry=registry)

    def text(self) -> bytes:
        """The page for Prometheus."""
        return generate_latest(self._registry)
