"""Streams as Prometheus metrics: counters of all streams, the state of those that are open, and the page to scrape."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edge_sdk._version import __version__
from edge_sdk.errors import StethoError
from edge_sdk.events import (
    AudioBlock,
    CycleResult,
    Event,
    Gap,
    Health,
    HealthState,
    QualityEvent,
    QualityState,
    StreamStats,
    Verdict,
    VerdictName,
)
from edge_sdk.extras import require_extra
from edge_sdk.numbers import whole_number
from edge_sdk.signal.breathing_rate import PRESENT_CYCLES, RateMeter

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LATENCY_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of :meth:`StreamMetrics.text`."""

_THERMAL = Path("/sys/class/thermal")
_UNKNOWN = "none"


class StreamMetrics:
    """Metrics of any number of streams in a registry of their own; every stream has a sink.

    No label names a patient or a file. Scraping and counting may happen in different threads.

    Parameters
    ----------
    about
        Called at every scrape; bundle, version, artefact and engine in use, for ``stetho_build_info``.
    thermal
        Folder of the kernel's thermal zones.

    Raises
    ------
    MissingDependencyError
        prometheus-client is not installed.
    """

    def __init__(self, about: Callable[[], Mapping[str, str]] = dict, *, thermal: Path = _THERMAL) -> None:
        require_extra("metrics", "the metrics page", "prometheus_client")
        from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, ProcessCollector

        self.registry = registry = CollectorRegistry()
        self.streams = Gauge("stetho_streams", "Streams that are open", registry=registry)
        self.opened = Counter("stetho_streams_opened", "Streams opened so far", registry=registry)
        self.samples = Counter("stetho_samples", "Samples received", registry=registry)
        self.lost = Counter("stetho_lost_samples", "Samples lost before or in this program", registry=registry)
        self.gaps = Counter("stetho_gaps", "Interruptions by lost samples", registry=registry)
        self.cycles = Counter("stetho_cycles", "Respiratory cycles", ["label", "quality"], registry=registry)
        self.latency = Histogram(
            "stetho_cycle_latency_seconds",
            "From the capture of the last sample that a cycle needed to its label",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.verdicts = Counter("stetho_verdicts", "Final verdicts", ["verdict", "reason"], registry=registry)
        of_stream: Any = {"labelnames": ["stream"], "registry": registry}
        self.verdict = Enum(
            "stetho_stream_verdict",
            "Present verdict of an open stream",
            states=[*get_args(VerdictName), _UNKNOWN],
            **of_stream,
        )
        self.quality = Enum(
            "stetho_stream_quality",
            "Present quality of an open stream",
            states=[*get_args(QualityState), _UNKNOWN],
            **of_stream,
        )
        self.health = Enum(
            "stetho_stream_health", "Health of the source of an open stream", states=get_args(HealthState), **of_stream
        )
        self.rate = Gauge(
            "stetho_stream_respiratory_rate_bpm",
            f"Respiratory rate of the last {PRESENT_CYCLES} cycles; NaN where it is not to be relied on",
            **of_stream,
        )
        registry.register(_Machine(about, thermal))
        ProcessCollector(registry=registry)
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def sink(self, stream: str) -> MetricsSink:
        """Make the sink of one stream; ``stream`` is its label while it is open."""
        return MetricsSink(self, stream)

    def text(self) -> bytes:
        """The page in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def _name(self, wanted: str) -> str:
        with self._lock:
            name, number = wanted, 1
            while name in self._names:
                number += 1
                name = f"{wanted} ({number})"
            self._names.add(name)
            return name

    def _forget(self, name: str) -> None:
        for metric in (self.verdict, self.quality, self.health, self.rate):
            metric.remove(name)
        with self._lock:
            self._names.discard(name)


class MetricsSink:
    """Counts the events of one stream; made by :meth:`StreamMetrics.sink`."""

    def __init__(self, metrics: StreamMetrics, stream: str) -> None:
        self._metrics = metrics
        self._wanted = stream
        self._stream = ""
        self._lost = 0
        self._rate = RateMeter(keep=PRESENT_CYCLES)

    def open(self, source: str, sample_rate: int) -> None:
        """Count the stream and show its state."""
        metrics = self._metrics
        self._stream = metrics._name(self._wanted)
        metrics.streams.inc()
        metrics.opened.inc()
        metrics.verdict.labels(self._stream).state(_UNKNOWN)
        metrics.quality.labels(self._stream).state(_UNKNOWN)
        metrics.health.labels(self._stream).state("healthy")
        metrics.rate.labels(self._stream).set(math.nan)

    def audio(self, block: AudioBlock) -> None:
        """Count the samples."""
        self._metrics.samples.inc(len(block.samples))

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Count a cycle, a gap or the final verdict; show quality, rate and running verdict."""
        metrics = self._metrics
        if isinstance(event, CycleResult):
            metrics.cycles.labels(event.label or _UNKNOWN, event.quality).inc()
            if latency_ms is not None:
                metrics.latency.observe(latency_ms / 1000)
            self._rate.result(event)
            self._show_rate()
        elif isinstance(event, Gap):
            metrics.gaps.inc()
            metrics.lost.inc(event.count)
            self._lost += event.count
            self._rate.restart()
        elif isinstance(event, QualityEvent):
            metrics.quality.labels(self._stream).state(event.state)
        elif isinstance(event, Verdict):
            metrics.verdict.labels(self._stream).state(event.verdict)
            if event.final:
                metrics.verdicts.labels(event.verdict, event.reason or _UNKNOWN).inc()

    def health(self, change: Health) -> None:
        """Show the health of the source."""
        self._metrics.health.labels(self._stream).state(change.state)

    def close(self, stats: StreamStats) -> None:
        """Count samples that were lost at the very end; the state of the stream leaves the page."""
        if not self._stream:
            return
        self._metrics.lost.inc(max(0, stats.samples_lost - self._lost))
        self._metrics.streams.dec()
        self._metrics._forget(self._stream)
        self._stream = ""

    def _show_rate(self) -> None:
        rate = self._rate.breaths_per_minute if self._rate.confident else None
        self._metrics.rate.labels(self._stream).set(math.nan if rate is None else rate)


class _Machine:
    """What is read at the time of a scrape: versions, the engine in use, temperatures."""

    def __init__(self, about: Callable[[], Mapping[str, str]], thermal: Path) -> None:
        self._about = about
        self._thermal = thermal

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for the registry."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily(
            "stetho_build", "Versions and the engine in use", value={"sdk_version": __version__, **self._about()}
        )
        heat = GaugeMetricFamily("stetho_temperature_celsius", "Thermal zones of this machine", labels=["zone"])
        for zone, celsius in temperatures(self._thermal).items():
            heat.add_metric([zone], celsius)
        yield heat


def temperatures(thermal: Path = _THERMAL) -> dict[str, float]:
    """Temperature of every thermal zone of the kernel in °C; zones that cannot be read are left out."""
    found: dict[str, float] = {}
    for folder in sorted(thermal.glob("thermal_zone*")):
        try:
            kind = (folder / "type").read_text("utf-8").strip() if (folder / "type").exists() else "zone"
            celsius = int((folder / "temp").read_text("utf-8")) / 1000
        except (OSError, ValueError):  # a zone of a device that sleeps
            continue
        found[f"{folder.name.removeprefix('thermal_zone')}-{kind}"] = celsius
    return found


class MetricsServer:
    """The page at ``http://HOST:PORT/metrics``, in a thread of its own.

    Parameters
    ----------
    metrics
        What it shows.
    address
        ``PORT`` on this machine only, or ``HOST:PORT``; port 0 takes a free one. There is no password: anyone who
        reaches the address reads it.

    Raises
    ------
    StethoError
        No such address, or the port is taken.
    """

    def __init__(self, metrics: StreamMetrics, address: str) -> None:
        from prometheus_client import start_http_server

        host, port = metrics_address(address)
        try:
            self._server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise StethoError(
                f"cannot serve metrics at {host}:{port}: {error.strerror or error}; choose another --metrics PORT"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def metrics_address(text: str) -> tuple[str, int]:
    """Host and port of ``PORT``, ``HOST:PORT`` or ``[IPv6]:PORT``; a port alone is that of the loopback device.

    Raises
    ------
    StethoError
        Not an address.
    """
    host, _, port = text.rpartition(":")
    number = whole_number(port)
    if number is None or number > 65_535 or (not host and ":" in text):
        raise StethoError(f"--metrics {text!r} is not PORT (0 to 65535) or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", number
