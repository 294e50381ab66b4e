"""Promises of the metrics: every count equals the events, the page is Prometheus' own format, no label grows."""

from __future__ import annotations

import math
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_sdk.errors import StethoError
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Gap, Health, QualityEvent, StreamStats, Verdict
from edge_sdk.sinks.metrics import MetricsServer, StreamMetrics, metrics_address, temperatures

RATE = 4000


def result(index: int, label: str | None, *, every_s: float = 3.0) -> CycleResult:
    onset = round(index * every_s * RATE)
    cycle = BreathCycle(index, onset, onset + 2 * RATE, RATE, True, onset + 2 * RATE, 0.9)
    return CycleResult(cycle, label, {}, "ok" if label else "clipping")


def verdict(name: str, *, final: bool) -> Verdict:
    return Verdict(12 * RATE, RATE, name, 0.9, None, 12.0, 4, final)  # type: ignore[arg-type]


def values(page: bytes) -> dict[str, float]:
    """``name{label=value,...}`` → value, read by Prometheus' own parser."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


@pytest.fixture
def metrics(tmp_path: Path) -> StreamMetrics:
    return StreamMetrics(lambda: {"bundle": "compact", "engine": "onnxruntime"}, thermal=tmp_path)


@pytest.mark.requirement("OUT-3")
def test_counts_are_those_of_the_events(metrics: StreamMetrics) -> None:
    sink = metrics.sink("bed 7")
    sink.open("/patients/Jane Doe.wav", RATE)
    for _ in range(3):
        sink.audio(AudioBlock(np.zeros(500, np.float32), RATE))
    sink.event(QualityEvent(0, RATE, "ok", -30.0), None)
    for index, label in enumerate(["normal", "wheeze", "normal", "normal", None]):
        sink.event(result(index, label), 180.0 if index else 4000.0)
    sink.event(verdict("abnormal", final=False), None)
    found = values(metrics.text())
    assert found["stetho_streams"] == found["stetho_streams_opened_total"] == 1
    assert found["stetho_samples_total"] == 1500
    assert found["stetho_cycles_total{label=normal,quality=ok}"] == 3
    assert found["stetho_cycles_total{label=none,quality=clipping}"] == 1
    assert found["stetho_cycle_latency_seconds_count"] == 5
    assert found["stetho_cycle_latency_seconds_sum"] == pytest.approx(4.72)
    assert found["stetho_cycle_latency_seconds_bucket{le=0.2}"] == 4
    assert found["stetho_stream_respiratory_rate_bpm{stream=bed 7}"] == 20
    assert found["stetho_stream_quality{stetho_stream_quality=ok,stream=bed 7}"] == 1
    assert found["stetho_stream_verdict{stetho_stream_verdict=abnormal,stream=bed 7}"] == 1
    assert not any(name.startswith("stetho_verdicts_total") for name in found)  # only final ones count
    assert b"Jane" not in metrics.text()

    sink.event(Gap(1500, 400, RATE), None)
    sink.health(Health("stalled", "no audio", 0))
    sink.event(verdict("uncertain", final=True), None)
    found = values(metrics.text())
    assert (found["stetho_lost_samples_total"], found["stetho_gaps_total"]) == (400, 1)
    assert found["stetho_stream_health{stetho_stream_health=stalled,stream=bed 7}"] == 1
    sink.close(StreamStats(samples_lost=450))
    found = values(metrics.text())
    assert found["stetho_lost_samples_total"] == 450
    assert found["stetho_verdicts_total{reason=none,verdict=uncertain}"] == 1
    assert found["stetho_streams"] == 0
    assert not any("bed 7" in name for name in found)


@pytest.mark.requirement("RES-4")
def test_a_rate_that_cannot_be_relied_on_is_not_a_number(metrics: StreamMetrics) -> None:
    sink = metrics.sink("a")
    sink.open("mic", RATE)
    sink.event(result(0, "normal"), None)
    sink.event(result(1, "normal"), None)
    assert math.isnan(values(metrics.text())["stetho_stream_respiratory_rate_bpm{stream=a}"])


def test_streams_of_one_name_stay_apart(metrics: StreamMetrics) -> None:
    first, second = metrics.sink("mic"), metrics.sink("mic")
    first.open("mic", RATE)
    second.open("mic", RATE)
    second.event(QualityEvent(0, RATE, "noisy", -30.0), None)
    found = values(metrics.text())
    assert found["stetho_stream_quality{stetho_stream_quality=noisy,stream=mic}"] == 0
    assert found["stetho_stream_quality{stetho_stream_quality=noisy,stream=mic (2)}"] == 1
    first.close(StreamStats())
    second.close(StreamStats())
    second.close(StreamStats())  # once more changes nothing
    assert values(metrics.text())["stetho_streams"] == 0


def test_temperature_and_engine_are_read_at_the_scrape(tmp_path: Path) -> None:
    engine = {"engine": "tensorrt"}
    metrics = StreamMetrics(lambda: engine, thermal=tmp_path)
    for number, (kind, text) in enumerate([("cpu", "41500\n"), ("gpu", "asleep\n")]):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(text)
    assert values(metrics.text())["stetho_temperature_celsius{zone=0-cpu}"] == 41.5
    assert temperatures(tmp_path) == {"0-cpu": 41.5}
    engine["engine"] = "cpu"
    (info,) = (name for name in values(metrics.text()) if name.startswith("stetho_build_info"))
    assert "engine=cpu" in info and "sdk_version=" in info


def test_the_page_is_served_on_this_machine_only(metrics: StreamMetrics) -> None:
    server = MetricsServer(metrics, "0")
    try:
        assert server.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(server.url) as reply:
            assert reply.headers["Content-Type"].startswith("text/plain; version=")
            assert values(reply.read())["stetho_streams"] == 0
        port = server.url.split(":")[2].split("/")[0]
        with pytest.raises(StethoError, match=r"cannot serve metrics at 127\.0\.0\.1:\d+: .*choose another"):
            MetricsServer(metrics, port)
    finally:
        server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


@pytest.mark.parametrize("text", ["", "http", "70000", ":80", "host:", "²", "-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(StethoError, match="is not PORT"):
        metrics_address(text)


def test_addresses() -> None:
    assert metrics_address("9100") == ("127.0.0.1", 9100)
    assert metrics_address("0.0.0.0:9100") == ("0.0.0.0", 9100)
    assert metrics_address("[::1]:0") == ("::1", 0)
