"""Promises of every sink for any sequence of events: no event dropped, one summary, times that agree."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from rich.console import Console

from edge_sdk.errors import AudioError
from edge_sdk.events import (
    AudioBlock,
    BreathCycle,
    CycleResult,
    DeviceChange,
    Event,
    Gap,
    QualityEvent,
    QualityState,
    StreamStats,
)
from edge_sdk.json_lines import jsonable
from edge_sdk.signal.breathing_rate import RateMeter
from edge_sdk.sinks.console import ConsoleSink, record_lines
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.live import LiveSink, LiveView
from edge_sdk.sinks.recorder import RecorderSink
from edge_sdk.sinks.strip import Strip
from edge_sdk.sinks.summary import Labels, SummaryBuilder
from edge_sdk.sinks.truth import Truth

RATE = 4000


class TrueSpan(NamedTuple):
    """A true cycle."""

    start_s: float
    end_s: float
    label: str


LABELS = Labels(("normal", "crackle", "wheeze", "both"), "normal")


def cycle(index: int, start_s: float, end_s: float, *, final: bool = True, phase_s: float | None = None) -> BreathCycle:
    phase = None if phase_s is None else round(phase_s * RATE)
    return BreathCycle(index, round(start_s * RATE), round(end_s * RATE), RATE, final, 0, 0.9, phase)


def result(index: int, start_s: float, end_s: float, label: str | None, quality: QualityState = "ok") -> CycleResult:
    p = {} if label is None else {name: 0.91 if name == label else 0.03 for name in LABELS.names}
    return CycleResult(cycle(index, start_s, end_s), label, p, quality)


SESSION: list[Event] = [
    QualityEvent(0, RATE, "ok", -30.0),
    cycle(0, 0.5, 1.0, final=False),
    result(0, 0.5, 2.9, "normal"),
    result(1, 3.5, 5.9, "wheeze"),
    Gap(6 * RATE, 400, RATE),
    QualityEvent(round(6.1 * RATE), RATE, "noisy", float("-inf")),
    result(2, 6.5, 8.9, None, "noisy"),
    result(3, 9.5, 11.9, "both"),
]


def feed(sink: Any, *, seconds: float = 12.0) -> None:
    sink.open("bed 7", RATE)
    silence = np.zeros(RATE // 10, np.float32)
    for k in range(round(seconds * 10) - 1):  # the gap stands for one block
        sink.audio(AudioBlock(silence, RATE, lost_before=400 if k == 60 else 0))
    for event in SESSION:
        sink.event(event, 123.456 if isinstance(event, CycleResult) else None)
    sink.close(StreamStats(samples_lost=400, gaps=1, classified=3, inference_ns=6_000_000))


@pytest.mark.requirement("OUT-1")
def test_jsonl_has_a_line_per_result_gap_and_quality_change_and_one_summary_last() -> None:
    records: list[dict[str, Any]] = []
    feed(JsonlSink(records.append, LABELS))
    assert [r["type"] for r in records] == ["quality", "cycle", "cycle", "gap", "quality", "cycle", "cycle", "summary"]
    assert all(r["source"] == "bed 7" for r in records)
    first = records[1]
    assert list(first) == ["type", "source", "start_s", "end_s", "label", "probabilities", "quality", "latency_ms"]
    assert (first["start_s"], first["end_s"], first["latency_ms"]) == (0.5, 2.9, 123.5)
    assert records[5]["label"] is None
    assert records[5]["quality"] == "noisy"
    assert (records[3]["start_s"], records[3]["lost_samples"]) == (6.0, 400)


def test_summary_counts_are_those_of_the_lines() -> None:
    records: list[dict[str, Any]] = []
    feed(JsonlSink(records.append, LABELS))
    summary = records[-1]
    assert summary["cycles"] == 4
    assert summary["counts"] == {"normal": 1, "crackle": 0, "wheeze": 1, "both": 1}
    assert summary["unclassified"] == {"noisy": 1}
    assert summary["abnormal_fraction"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["mean_p_abnormal"] == pytest.approx((0.09 + 0.97 + 0.97) / 3, abs=1e-4)
    assert summary["duration_s"] == 12.0
    assert summary["lost_samples"] == 400
    assert summary["quality_s"] == {"gap": 0.1, "noisy": 5.9, "ok": 6.0}
    assert summary["received_fraction"] == 0.9916  # 11.9 of 12 s
    assert summary["respiratory_rate_bpm"] == 20.0


def test_json_never_holds_nan_or_infinity() -> None:
    records: list[dict[str, Any]] = []
    feed(JsonlSink(records.append, LABELS))
    text = json.dumps(jsonable(records), allow_nan=False)  # raises on NaN
    assert json.loads(text)[4]["level_dbfs"] is None
    assert jsonable({"a": (np.float32("nan"), np.arange(2), np.int64(3), Path("x"))}) == {"a": [None, [0, 1], 3, "x"]}


def test_rate_is_unchanged_by_a_pause_or_a_gap() -> None:
    assert RateMeter().breaths_per_minute is None
    meter = RateMeter()
    meter.cycle(cycle(0, 0.0, 2.0))
    assert meter.breaths_per_minute == 30.0  # of one breath, its length
    for k, start_s in enumerate((3.0, 6.0, 26.0, 29.0)):  # an apnoea of 20 s
        meter.cycle(cycle(k + 1, start_s, start_s + 2))
    meter.restart()
    meter.cycle(cycle(9, 36.0, 38.0))
    assert meter.breaths_per_minute == 20.0


def test_the_rate_is_of_the_sure_cycles_where_there_are_enough() -> None:
    # Breaths of 4 s, of which the last were split into their phases.
    onsets = (0.0, 4.0, 8.0, 12.0, 14.0, 16.0, 18.0, 20.0)

    def rate(*confidences: float) -> float | None:
        meter = RateMeter()
        for onset, confidence in zip(onsets, confidences, strict=False):
            meter.add(onset, 2.0 if onset >= 12.0 else 4.0, confidence)
        return meter.breaths_per_minute

    assert rate(*8 * (0.9,)) == 30.0  # of 4, 4, 4, 2, 2, 2 and 2 seconds
    assert rate(0.9, 0.9, 0.9, *5 * (0.4,)) == 15.0
    assert rate(0.9, 0.9, *6 * (0.4,)) == 30.0  # a single sure interval is not enough
    assert rate(0.3, 0.3, 0.3) == 15.0 and rate(0.3) == 15.0


def test_console_prints_every_cycle_and_the_summary() -> None:
    out = io.StringIO()
    feed(ConsoleSink(out, LABELS))
    lines = out.getvalue().splitlines()
    assert len([line for line in lines if " – " in line and "wheeze   0.91" in line]) == 1
    assert any("no label: noisy" in line for line in lines)
    assert any("gap: 400 samples lost" in line for line in lines)
    assert lines[-2] == "bed 7: 12.0 s, 4 breaths (1 normal, 1 wheeze, 1 both, 1 without a label)"
    assert "20.0 /min" in lines[-1]


def test_lines_survive_a_level_that_json_has_made_null() -> None:
    quality = {"type": "quality", "source": "x", "start_s": 0.0, "quality": "silence", "level_dbfs": None}
    assert "silence" in next(record_lines([quality]))


def test_truth_is_matched_by_the_largest_overlap() -> None:
    truth = Truth([TrueSpan(0.4, 3.0, "normal"), TrueSpan(3.2, 6.0, "crackle")], normal="normal")
    assert truth.label_of(cycle(0, 2.8, 5.0)) == "crackle"
    assert truth.label_of(cycle(0, 6.5, 7.0)) is None
    for labelled in (result(0, 0.5, 2.9, "normal"), result(1, 3.3, 6.0, "wheeze"), result(2, 7.0, 8.0, "both")):
        truth.score(labelled)
    score = truth.record(12.0)
    assert score["cycles"] == 2
    assert score["counts"] == {"crackle": 1, "normal": 1}
    assert (score["found"], score["answered"]) == (2, 2)
    assert (score["same_label"], score["same_normal_or_abnormal"]) == (1, 2)
    assert truth.record(4.0)["cycles"] == 1  # only what has been played


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (66, 16), (200, 60)])
def test_live_view_fits_the_terminal_and_shows_the_last_breaths(size: tuple[int, int]) -> None:
    width, height = size
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, record=True)
    truth = Truth([TrueSpan(9.0, 12.0, "both")], normal="normal")
    view = LiveView(LABELS, title="default 0.1", truth=truth)
    view.open("bed 7", RATE)
    for k in range(120):
        view.audio(AudioBlock(np.full(RATE // 10, 0.01, np.float32), RATE, lost_before=400 if k == 60 else 0))
    for event in SESSION:
        view.event(event, 123.0)
    view.event(cycle(4, 12.0, 12.1, final=False), None)
    console.print(view)
    text = console.export_text()
    lines = text.splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for word in ("bed 7", "● a breath", "noisy", "400", "9.50", "both", "123 ms", "not a medical device"):
        assert word in text, word
    if width >= 80:
        assert "✓" in text


def test_live_sink_restores_the_terminal_and_prints_the_summary() -> None:
    out = io.StringIO()
    console = Console(width=90, height=24, file=out, force_terminal=True)
    feed(LiveSink(console, LABELS))
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1  # cursor hidden, shown again
    assert "4 breaths (1 normal" in out.getvalue()


@pytest.mark.parametrize(("same_session", "ending"), [(True, "the session goes on"), (False, "the session ends here")])
def test_every_sink_shows_a_change_of_the_device(tmp_path: Path, same_session: bool, ending: str) -> None:
    change = DeviceChange(2 * RATE, RATE, "serial number B instead of A", {"site": None}, {"site": "x"}, same_session)
    lines, screen, records = io.StringIO(), io.StringIO(), list[dict[str, Any]]()
    console = Console(width=90, height=24, file=screen, force_terminal=True)
    sinks: list[Any] = [ConsoleSink(lines, LABELS), LiveSink(console, LABELS), JsonlSink(records.append, LABELS)]
    for sink in sinks:
        sink.open("bed 7", RATE)
        sink.event(change, None)
        sink.close(StreamStats())
    shown = f"2.00 s  another device: serial number B instead of A; {ending}"
    assert shown in lines.getvalue() and shown in screen.getvalue()
    expected = {"type": "device", "source": "bed 7", "start_s": 2.0, "reason": "serial number B instead of A"}
    devices = {"previous": {"site": None}, "device": {"site": "x"}}
    assert records[0] == {**expected, **devices, "same_session": same_session}


def test_strip_puts_a_tone_into_its_band_whatever_the_block_size() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(3 * RATE) / RATE).astype(np.float32)
    whole, blocks = Strip(RATE), Strip(RATE)
    whole.accept(tone)
    for start in range(0, len(tone), 37):
        blocks.accept(tone[start : start + 37])
    shades = whole.shades(20)
    assert np.array_equal(shades, blocks.shades(20))
    assert shades.shape == (16, 20)
    assert set(shades.argmax(axis=0)) == {int((400 - 60) / 75)}
    whole.skip(10 * 60 * RATE)  # ten dropped minutes cost no memory and no time
    assert whole.count == 30 + 6000


def test_recording_holds_the_audio_with_dropped_samples_as_zeros_and_the_events(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "visits"
    sink = RecorderSink(folder, LABELS)
    sink.open("phantom:asthma:7", RATE)
    (session,) = folder.glob("*.session.json")
    assert json.loads(session.read_text("utf-8"))["complete"] is False
    first = (np.arange(-(1 << 23), 1 << 23, 1 << 14) / (1 << 23)).astype(np.float32)
    second = np.full(500, 0.25, np.float32)
    sink.audio(AudioBlock(first, RATE))
    sink.audio(AudioBlock(second, RATE, first.size + 300, lost_before=300))
    sink.event(result(0, 0.0, 0.2, "normal"), None)
    sink.close(StreamStats(samples_lost=300, gaps=1))
    flac, _, events = sorted(folder.iterdir(), key=lambda path: path.suffix)
    assert (flac.suffix, events.suffixes[-2:]) == (".flac", [".events", ".jsonl"])
    written = json.loads(session.read_text("utf-8"))
    assert (written["complete"], written["sound"], written["samples"]) == (True, flac.name, first.size + 800)
    samples, rate = soundfile.read(flac, dtype="float32")
    assert rate == RATE
    assert np.array_equal(samples, np.concatenate([first, np.zeros(300, np.float32), second]))
    lines = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    assert [line["type"] for line in lines] == ["lost", "cycle", "summary"]
    assert (lines[0]["file_sample"], lines[0]["samples"]) == (first.size, 300)
    assert lines[-1]["lost_samples"] == 300


def test_recording_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(AudioError, match="cannot record into"):
        RecorderSink(tmp_path / "taken", LABELS).open("x", RATE)


def test_no_contact_gives_no_respiratory_rate() -> None:
    builder = SummaryBuilder(LABELS)
    builder.open("x", 4000)
    for index in range(3):
        cycle = BreathCycle(index, index * 8000, index * 8000 + 6000, 4000, True, index * 8000 + 7000, 0.5)
        builder.event(CycleResult(cycle, None, quality="no-contact"))
    assert builder.record()["respiratory_rate_bpm"] is None
    assert builder.record()["unclassified"] == {"no-contact": 3}
