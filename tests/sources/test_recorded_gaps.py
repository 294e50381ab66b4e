"""A recording of a session with gaps replays with the same gaps, and so with the same events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.events import AudioBlock, Event, Gap, StreamStats
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.sinks.recorder import RecorderSink
from edge_sdk.sinks.summary import Labels
from edge_sdk.sources.file import FileSource
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.sources.recorded_gaps import cut_out_gaps, read_recorded_gaps

RATE = 4000
GAPS = ((9_000, 777), (9_777, 3), (30_001, 12_345), (59_000, 1_000))  # the last one ends the recording


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


def _blocks(size: int) -> Iterator[AudioBlock]:
    """16 s of a patient, of which the ranges above never arrive."""
    with PhantomSource("asthma", duration_s=15.0, sample_rate=RATE) as source:
        samples = np.concatenate([block.samples for block in source])[:60_000]
    whole = (AudioBlock(samples[i : i + size], RATE, i) for i in range(0, samples.size, size))
    return cut_out_gaps(whole, GAPS)


@pytest.mark.parametrize("size", [200, 4096, 60_000])
def test_what_is_cut_out_is_counted_to_the_sample(size: int) -> None:
    blocks = list(_blocks(size))
    assert sum(b.samples.size for b in blocks) == 60_000 - sum(n for _, n in GAPS)
    assert sum(b.lost_before for b in blocks) == sum(n for _, n in GAPS)
    position = 0
    for block in blocks:
        assert block.first_sample == position + block.lost_before
        position = block.first_sample + block.samples.size
    assert position == 60_000


@pytest.mark.requirement("REC-2")
def test_a_replay_gives_the_events_of_the_session(bundle: Bundle, tmp_path: Path) -> None:
    stream = bundle.stream(RATE)
    recorder = RecorderSink(tmp_path, Labels(bundle.labels, "normal"))
    recorder.open("serial", RATE)
    live: list[Event] = []
    for block in _blocks(200):
        live += stream.accept(block)
        recorder.audio(block)
    live += stream.finish()
    recorder.close(StreamStats())
    recording = next(tmp_path.glob("*.flac"))
    assert sum(n for _, n in read_recorded_gaps(recording)) == sum(n for _, n in GAPS)
    replay = bundle.stream(RATE)
    again = [event for block in FileSource(recording) for event in replay.accept(block)]
    again += replay.finish()
    assert again == live
    assert sum(e.count for e in again if isinstance(e, Gap)) == sum(n for _, n in GAPS)


def test_a_cut_line_of_a_killed_session_does_no_harm(tmp_path: Path) -> None:
    text = '{"type": "lost", "file_sample": 5, "samples": 7}\n[1]\n{"type": "lost", "file_sam'
    (tmp_path / "a.events.jsonl").write_text(text)
    assert read_recorded_gaps(tmp_path / "a.flac") == [(5, 7)]
    assert read_recorded_gaps(tmp_path / "b.flac") == []
    assert read_recorded_gaps(tmp_path / "a.wav") == []
