"""Audio that was mostly lost is never called good: its seconds, its quality and its verdict say so."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edge_sdk.events import AudioBlock, Gap, QualityEvent, StreamStats, Verdict
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.summary import Labels, SummaryBuilder, received_fraction
from tests.runtime.conftest import phantom

RATE = 4000
SECONDS = 24.0


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle()


def listened(bundle: Bundle, lost_frames: np.ndarray, frame: int, step: int = 1) -> list[dict[str, Any]]:
    """Records of a phantom whose frames are lost where the mask says so; ``step`` frames a block at most."""
    samples, stream, records = phantom("asthma", SECONDS), bundle.stream(RATE), list[dict[str, Any]]()
    sink = JsonlSink(records.append, summary_labels(bundle))
    sink.open("x", RATE)
    lost, k = 0, 0
    while k < lost_frames.size:
        if lost_frames[k]:
            lost, k = lost + frame, k + 1
            continue
        n = 1
        while n < step and k + n < lost_frames.size and not lost_frames[k + n]:
            n += 1
        block = AudioBlock(samples[k * frame : (k + n) * frame], RATE, k * frame, lost_before=lost)
        events = stream.accept(block)
        sink.audio(block)
        for event in events:
            sink.event(event, None)
        lost, k = 0, k + n
    for event in stream.finish():
        sink.event(event, None)
    sink.close(stream.stats)
    return records


def lossy(share: float, frame: int, burst: int, seed: int = 3) -> np.ndarray:
    """A mask that loses ``share`` of the frames, ``burst`` frames at a time."""
    bursts = np.random.default_rng(seed).random(round(SECONDS * RATE) // frame // burst + 1) < share
    mask = np.repeat(bursts, burst)[: round(SECONDS * RATE) // frame]
    mask[-1] = False
    return mask


@pytest.mark.parametrize(("frame", "burst"), [(40, 1), (40, 10), (4000, 1), (8000, 1)])
def test_a_link_that_loses_two_thirds_is_not_ok(shipped: Bundle, frame: int, burst: int) -> None:
    mask = lossy(0.65, frame, burst)
    received_s = np.count_nonzero(~mask) * frame / RATE
    assert received_s < 0.5 * SECONDS
    summary = listened(shipped, mask, frame)[-1]
    quality = summary["quality_s"]
    assert sum(quality.values()) == pytest.approx(summary["duration_s"], abs=0.01)
    assert quality.get("ok", 0.0) <= received_s + 0.001
    assert quality["gap"] >= SECONDS - received_s - 0.001
    assert summary["received_fraction"] == pytest.approx(received_s / SECONDS, abs=1e-4)
    assert (summary["verdict"], summary["verdict_reason"]) == ("uncertain", "poor-quality")


def test_fragments_shorter_than_a_measurement_are_not_usable(shipped: Bundle) -> None:
    """One frame in ten is lost, so that nine tenths are there, in pieces of 0.1 s."""
    records = listened(shipped, lossy(0.1, 40, 1), 40)
    summary = records[-1]
    assert summary["received_fraction"] > 0.85
    assert summary["quality_s"]["gap"] > 0.8 * SECONDS
    assert summary["usable_s"] < 0.2 * SECONDS
    assert summary["verdict_reason"] == "poor-quality"
    states = [record["quality"] for record in records if record["type"] == "quality"]
    assert all(a != b for a, b in pairwise(states) if a == "gap"), "one line for many fragments"


def test_block_sizes_change_nothing_under_loss(shipped: Bundle) -> None:
    mask = lossy(0.2, 400, 3)
    assert listened(shipped, mask, 400, step=1) == listened(shipped, mask, 400, step=7)


def test_one_pause_costs_its_own_seconds_only(shipped: Bundle) -> None:
    mask = np.zeros(round(SECONDS * RATE) // 400, bool)
    mask[120:160] = True  # 4 of 24 s
    summary = listened(shipped, mask, 400)[-1]
    assert summary["quality_s"] == {"gap": 4.0, "ok": 20.0}
    assert summary["received_fraction"] == 0.8333
    assert summary["verdict_reason"] != "poor-quality"


def test_a_gap_that_no_audio_follows_does_not_spoil_the_verdict(shipped: Bundle) -> None:
    """A device that was away when its session ended: what came before is as good as it was."""
    stream = shipped.stream(RATE)
    stream.accept(phantom("asthma", SECONDS))
    before = stream.accept(AudioBlock(np.zeros(0, np.float32), RATE, round(99 * SECONDS * RATE)))
    assert isinstance(before[0], Gap)
    verdict = stream.finish()[-1]
    whole = shipped.stream(RATE)
    whole.accept(phantom("asthma", SECONDS))
    expected = whole.finish()[-1]
    assert isinstance(verdict, Verdict) and isinstance(expected, Verdict)
    assert (verdict.verdict, verdict.reason) == (expected.verdict, expected.reason)
    assert verdict.reason != "poor-quality"


def test_the_seconds_of_a_quality_leave_out_what_was_lost_in_it() -> None:
    """The newest gap comes before the quality of the audio that it ends."""
    builder = SummaryBuilder(Labels(("normal", "wheeze"), "normal"))
    builder.open("x", RATE)
    builder.audio(AudioBlock(np.zeros(2 * RATE, np.float32), RATE))
    builder.event(Gap(RATE, RATE // 2, RATE))
    builder.event(QualityEvent(0, RATE, "ok", -20.0))  # of the second before the gap
    builder.event(QualityEvent(3 * RATE // 2, RATE, "noisy", -20.0))
    assert builder.record()["quality_s"] == {"gap": 0.5, "noisy": 0.5, "ok": 1.0}
    assert builder.record()["received_fraction"] == 0.75
    assert builder.record(StreamStats(samples_lost=RATE))["received_fraction"] == 0.5


def test_the_received_fraction_is_1_only_if_nothing_was_lost() -> None:
    assert received_fraction(0, 0) is None
    assert received_fraction(10_000_000, 0) == 1.0
    assert received_fraction(10_000_000, 1) == 0.9999
    assert received_fraction(5, 5) == 0.0
