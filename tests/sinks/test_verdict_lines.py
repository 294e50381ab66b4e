"""Verdicts and adventitious sounds in lines, summary, console and live view."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edge_sdk.events import Adventitious, AudioBlock, Event, StreamStats, Verdict, VerdictName, VerdictReason
from edge_sdk.sinks.console import record_lines
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.live import LiveView
from edge_sdk.sinks.summary import Labels

RATE = 4000
LABELS = Labels(("normal", "crackle", "wheeze", "both"), "normal")


def verdict(
    at_s: float, name: VerdictName, p: float | None, reason: VerdictReason | None = None, *, final: bool = False
) -> Verdict:
    return Verdict(round(at_s * RATE), RATE, name, p, reason, at_s - 0.4, 3, final)


def sound(kind: str, start_s: float, end_s: float) -> Adventitious:
    return Adventitious(kind, round(start_s * RATE), round(end_s * RATE), RATE, 0.87, round(end_s * RATE))


SESSION: list[Event] = [
    sound("crackle", 1.0, 1.4),
    sound("wheeze", 4.0, 5.5),
    sound("crackle", 6.0, 6.2),
    verdict(6.4, "uncertain", 0.55),
    verdict(7.4, "abnormal", 0.93),
    verdict(9.0, "abnormal", 0.95, final=True),
]


def lines_of(events: list[Event], *, running: bool) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    sink = JsonlSink(records.append, LABELS, running=running)
    sink.open("ward.wav", RATE)
    sink.audio(AudioBlock(np.zeros(9 * RATE, np.float32), RATE, 0))
    for event in events:
        sink.event(event, None)
    sink.close(StreamStats())
    return records


def test_sounds_have_lines_and_the_last_verdict_is_in_the_summary() -> None:
    records = lines_of(SESSION, running=False)
    assert [record["type"] for record in records] == ["adventitious"] * 3 + ["summary"]
    times = {"start_s": 4.0, "end_s": 5.5}
    assert records[1] == {"type": "adventitious", "source": "ward.wav", **times, "kind": "wheeze", "confidence": 0.87}
    summary = records[-1]
    assert (summary["verdict"], summary["p_abnormal"], summary["verdict_reason"]) == ("abnormal", 0.95, None)
    assert summary["adventitious"] == {"crackle": 2, "wheeze": 1} and summary["usable_s"] == pytest.approx(8.6)


def test_running_verdicts_have_lines_where_they_are_asked_for() -> None:
    records = [record for record in lines_of(SESSION, running=True) if record["type"] == "verdict"]
    assert [(r["start_s"], r["verdict"], r["p_abnormal"]) for r in records] == [
        (6.4, "uncertain", 0.55),
        (7.4, "abnormal", 0.93),
    ]
    assert all(r["source"] == "ward.wav" and r["verdict_reason"] is None and r["cycles"] == 3 for r in records)


def test_without_a_verdict_the_fields_are_null() -> None:
    (summary,) = lines_of([], running=True)
    fields = ("verdict", "p_abnormal", "verdict_reason", "usable_s", "adventitious")
    assert [summary[name] for name in fields] == [None] * 5
    assert not any("verdict" in line for line in record_lines([summary]))


def test_console_shows_sounds_verdict_and_reason() -> None:
    text = "\n".join(record_lines(lines_of(SESSION, running=True)))
    assert "wheeze sound 0.87" in text and "verdict: uncertain, p(abnormal) 0.55" in text
    assert "verdict: abnormal, p(abnormal) 0.95; adventitious sounds: 2 crackle, 1 wheeze" in text
    short = lines_of([verdict(3.0, "uncertain", None, "too-little-audio", final=True)], running=False)
    assert "verdict: uncertain (too-little-audio); adventitious sounds: none" in "\n".join(record_lines(short))


@pytest.mark.parametrize("size", [(100, 24), (80, 14), (140, 50)])
def test_live_view_marks_sounds_and_shows_the_running_verdict(size: tuple[int, int]) -> None:
    view = LiveView(LABELS, title="test")
    view.open("mic", RATE)
    view.audio(AudioBlock((0.1 * np.random.default_rng(0).standard_normal(9 * RATE)).astype(np.float32), RATE, 0))
    console = Console(width=size[0], height=size[1], file=io.StringIO(), force_terminal=True)

    def shown() -> str:
        with console.capture() as capture:
            console.print(view)
        return capture.get()

    before = shown()
    for event in SESSION:
        view.event(event, None)
    after = shown()
    assert "verdict" not in before and "∿" not in before
    assert "abnormal" in after and after.count("∿") == 15 and "∴" in after
    assert len(after.splitlines()) <= size[1] and len(after.splitlines()) == len(before.splitlines())
    view.event(verdict(9.0, "uncertain", 0.4, "unfamiliar"), None)
    if size[0] >= 100:
        assert "unfamiliar" in shown()
