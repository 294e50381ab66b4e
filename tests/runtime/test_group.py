"""Streams that advance together: each has the events that it has alone, and none the troubles of another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import AudioError, EngineError, StreamError
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, Gap, Verdict
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.steps import MOST_STREAMS, StepBatch
from edge_sdk.runtime.group import StreamGroup
from edge_sdk.runtime.segmentation.factory import LearnedFactory
from edge_sdk.runtime.stream import Stream
from tests.runtime.conftest import Samples, assert_same, phantom
from tests.runtime.segmentation.conftest import write_learned
from tests.support.tiny_segmenter import write_tiny_segmenter

SECONDS = 8.0


@pytest.fixture(scope="module")
def bundle() -> Bundle:  # type: ignore[override]
    return edge_sdk.load_bundle()


class Listener:
    """A stream, its blocks to come and its events so far; ``lost``: samples that are left out."""

    def __init__(
        self, bundle: Bundle, seed: int, rate: int, size: int, *, lost: tuple[int, int] | None = None,
        starts: int = 0, scenario: str = "asthma", seconds: float = SECONDS, metadata: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.samples = phantom(scenario, seconds, rate, 1_000_000 + seed)
        self.rate, self.size, self.lost, self.starts = rate, size, lost, starts
        self.stream = bundle.stream(rate, metadata)
        self.alone = bundle.stream(rate, metadata)
        self.events: list[Event] = []

    def blocks(self) -> Iterator[AudioBlock]:
        begin, end = self.lost or (0, 0)
        for first, last in ((0, begin), (end, self.samples.size)):
            for at in range(first, last, self.size):
                yield AudioBlock(self.samples[at : min(at + self.size, last)], self.rate, at)

    def expected(self) -> list[Event]:
        found = [event for block in self.blocks() for event in self.alone.accept(block)]
        return found + self.alone.finish()


def advance(group: StreamGroup, listeners: list[Listener]) -> None:
    """Every listener gives a block a turn, from its turn on, until it has none; then it is finished."""
    waiting = {id(one): one.blocks() for one in listeners}
    left, turn = list(listeners), 0
    while left:
        now = [(one, next(waiting[id(one)], None)) for one in left if one.starts <= turn]
        given = [(one, block) for one, block in now if block is not None]
        for (one, _), found in zip(given, group.accept([(o.stream, b) for o, b in given]), strict=True):
            assert isinstance(found, list), found
            one.events += found
        for one, block in now:
            if block is None:
                one.events += one.stream.finish()
                left.remove(one)
        turn += 1


def check(listeners: list[Listener]) -> None:
    for one in listeners:
        expected = one.expected()
        assert len(one.events) == len(expected)
        for mine, alone in zip(one.events, expected, strict=True):
            assert_same(alone, mine)
        assert one.stream.stats.samples_in == one.alone.stats.samples_in


def test_streams_together_have_the_events_of_each_alone(bundle: Bundle) -> None:
    """Blocks of many sizes, gaps, streams that join late and leave early, other rates and metadata."""
    listeners = [
        Listener(bundle, 1, 8000, 400),
        Listener(bundle, 2, 8000, 400, metadata={"site": "Tc", "age_years": 4}),
        Listener(bundle, 3, 8000, 640, starts=3),
        Listener(bundle, 4, 8000, 4001, scenario="pneumonia"),
        Listener(bundle, 5, 8000, 251, lost=(30_011, 34_000)),
        Listener(bundle, 6, 4000, 200, starts=20),
        Listener(bundle, 7, 4000, 333, lost=(16_000, 16_001)),
        Listener(bundle, 8, 44_100, 4410),
    ]
    advance(StreamGroup(), listeners)
    check(listeners)
    kinds = {type(event) for one in listeners for event in one.events}
    assert {BreathCycle, CycleResult, Verdict, Gap} <= kinds


def test_more_streams_than_fit_in_one_run(bundle: Bundle) -> None:
    listeners = [Listener(bundle, k % 3, 4000, 320, seconds=3.0) for k in range(MOST_STREAMS + 3)]
    advance(StreamGroup(), listeners)
    check(listeners[:3])
    for k, one in enumerate(listeners):
        assert len(one.events) == len(listeners[k % 3].events)
        for mine, same in zip(one.events, listeners[k % 3].events, strict=True):
            assert_same(same, mine)


def test_a_stream_goes_from_group_to_group_and_on_alone(bundle: Bundle) -> None:
    one, other = Listener(bundle, 1, 8000, 800), Listener(bundle, 2, 8000, 800)
    groups = StreamGroup(), StreamGroup()
    for turn, blocks in enumerate(zip(one.blocks(), other.blocks(), strict=True)):
        if turn % 3 == 2:
            one.events += one.stream.accept(blocks[0])
            other.events += other.stream.accept(blocks[1])
            continue
        found = groups[turn % 2].accept(list(zip((one.stream, other.stream), blocks, strict=True)))
        one.events += found[0]  # type: ignore[arg-type]
        other.events += found[1]  # type: ignore[arg-type]
    one.events += one.stream.finish()
    other.events += other.stream.finish()
    check([one, other])


def test_bundles_without_a_common_run_take_part_too(bundle: Bundle, bundle_folder: Path, tmp_path: Path) -> None:
    """One whose segmenter has no network, and an older one whose graph takes a single stream."""
    envelope = load_bundle(bundle_folder, allow_untrained=True)
    older = load_bundle(write_learned(tmp_path / "older", write_tiny_segmenter(tmp_path)), allow_untrained=True)
    assert isinstance(older.segmenter, LearnedFactory)
    network = older.segmenter.model.network
    assert not network.by_frame and network.most_streams == 1
    with pytest.raises(ValueError, match="one stream at a time"):
        StepBatch(network)
    listeners = [Listener(one, k, 8000, 500) for one in (envelope, older, bundle) for k in (1, 2)]
    advance(StreamGroup(), listeners)
    check(listeners)
    assert all(any(isinstance(event, BreathCycle) for event in one.events) for one in listeners)


def test_a_stream_waits_for_no_other(bundle: Bundle) -> None:
    """What a block completes is computed by the call that takes it, whatever others still lack."""
    ahead, behind = bundle.stream(8000), bundle.stream(8000)
    alone, group = bundle.stream(8000), StreamGroup()
    samples = phantom("asthma", SECONDS, 8000)
    for at in range(0, samples.size, 400):
        blocks: list[tuple[Stream, Samples]] = [(ahead, samples[at : at + 400]), (behind, samples[at : at + 1])]
        found = group.accept(blocks)[0]
        expected = alone.accept(samples[at : at + 400])
        assert isinstance(found, list) and len(found) == len(expected)


def test_the_error_of_one_stream_is_none_of_the_others(bundle: Bundle) -> None:
    good, bad, finished = bundle.stream(8000), bundle.stream(8000), bundle.stream(8000)
    alone, group = bundle.stream(8000), StreamGroup()
    finished.finish()
    samples = phantom("asthma", SECONDS, 8000)
    spoiled = samples[:800].copy()
    spoiled[17] = np.nan
    for at in range(0, samples.size, 800):
        block = samples[at : at + 800]
        blocks = [(bad, spoiled if at == 8000 else block), (finished, block), (good, block)]
        of_bad, of_finished, of_good = group.accept(blocks)
        expected = alone.accept(block)
        assert isinstance(of_good, list) and len(of_good) == len(expected)
        for mine, same in zip(of_good, expected, strict=True):
            assert_same(same, mine)
        assert isinstance(of_finished, StreamError)
        assert isinstance(of_bad, AudioError if at == 8000 else list)
    assert bad.stats.samples_in == samples.size - 800


def test_a_run_that_fails_is_done_again_one_by_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    listeners = [Listener(bundle, 1, 8000, 800), Listener(bundle, 2, 8000, 800)]
    calls: dict[str, int] = defaultdict(int)
    step = StepBatch.step

    def failing(self: StepBatch, *arguments: Any) -> Any:
        calls["all"] += 1
        if calls["all"] % 2:
            raise EngineError("out of memory")
        return step(self, *arguments)

    monkeypatch.setattr(StepBatch, "step", failing)
    advance(StreamGroup(), listeners)
    check(listeners)
    assert calls["all"] > 30


def test_a_group_runs_each_network_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of streams whose ticks are complete; no stream runs one alone."""
    runs: dict[int, int] = defaultdict(int)
    bind = OrtEngine.bind

    def counted(self: OrtEngine, inputs: Any, outputs: Any) -> Any:
        run, streams = bind(self, inputs, outputs), len(inputs["features"])

        def once() -> None:
            runs[streams] += 1
            run()

        return once

    monkeypatch.setattr(OrtEngine, "bind", counted)
    streams, group = [bundle.stream(8000) for _ in range(4)], StreamGroup()
    samples = phantom("asthma", SECONDS, 8000)
    for at in range(0, 40_000, 640):
        group.accept([(stream, samples[at : at + 640]) for stream in streams])
    assert set(runs) == {4}
    assert 60 <= runs[4] <= 5.0 / 0.08 + 5.0 / 0.4


def test_a_stream_cannot_be_given_twice(bundle: Bundle) -> None:
    stream = bundle.stream(8000)
    with pytest.raises(StreamError, match="given twice"):
        StreamGroup().accept([(stream, np.zeros(10, np.float32)), (stream, np.zeros(10, np.float32))])
    assert stream.stats.samples_in == 0
    assert StreamGroup().accept([]) == []
