"""Dropped samples: counted exactly, never joined, and a cycle that contains them is not classified."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from edge_sdk.errors import StreamError
from edge_sdk.events import AudioBlock, CycleResult, Event, Gap, QualityEvent
from edge_sdk.runtime.bundle.load import Bundle
from tests.runtime.conftest import phantom

RATE = 4000
Samples = npt.NDArray[np.float32]


def with_gap(bundle: Bundle, samples: Samples, at: int, count: int, step: int = 700) -> tuple[list[Event], Bundle]:
    """Push the samples but for ``[at, at + count)``."""
    stream = bundle.stream(RATE)
    events: list[Event] = []
    for begin in range(0, at, step):
        events += stream.accept(AudioBlock(samples[begin : min(begin + step, at)], RATE, begin))
    dropped = count
    for begin in range(at + count, samples.size, step):
        events += stream.accept(AudioBlock(samples[begin : begin + step], RATE, begin, lost_before=dropped))
        dropped = 0
    events += stream.finish()
    assert stream.stats.samples_lost == count
    assert stream.stats.gaps == 1
    assert stream.stats.samples_in == samples.size - count
    return events, bundle


def results(events: list[Event]) -> list[CycleResult]:
    return [event for event in events if isinstance(event, CycleResult)]


@pytest.mark.parametrize("count", [1, 79, 4000, 1_000_003])
@pytest.mark.requirement("AUD-1")
def test_a_gap_is_emitted_with_its_place_and_length(bundle: Bundle, count: int) -> None:
    samples = np.concatenate((phantom()[:20_011], np.zeros(count, np.float32), phantom()[20_011:]))
    events, _ = with_gap(bundle, samples, 20_011, count)
    assert [e for e in events if isinstance(e, Gap)] == [Gap(20_011, count, RATE)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("scenario", ["asthma", "healthy", "pneumonia"])
def test_the_cycle_that_contains_a_gap_is_closed_unclassified(bundle: Bundle, scenario: str, share: float) -> None:
    samples = phantom(scenario)
    middle = results(bundle_events(bundle, samples))[1].cycle
    at = round(middle.onset + share * (middle.end - middle.onset))
    events, _ = with_gap(bundle, samples, at, 400)
    cut = [r for r in results(events) if r.quality == "gap"]
    assert len(cut) == 1
    assert cut[0].label is None and cut[0].probabilities == {}
    assert at - 0.6 * RATE < cut[0].cycle.end <= at
    for result in results(events):
        assert result.cycle.end <= at or result.cycle.onset >= at + 400, "no cycle spans dropped samples"


@pytest.mark.requirement("AUD-1")
def test_state_restarts_after_a_gap_and_time_goes_on(bundle: Bundle) -> None:
    samples, at, count = phantom(seconds=20.0), 30_000, 12_345
    tail = samples[at:]
    stream = bundle.stream(RATE)
    events = stream.accept(samples[:at])
    moved = at + count
    events += stream.accept(AudioBlock(tail, RATE, moved, lost_before=count)) + stream.finish()
    fresh = results(bundle_events(bundle, tail))
    after = [r for r in results(events) if r.cycle.onset >= moved]
    assert [(r.cycle.onset - moved, r.cycle.end - moved, r.label, dict(r.probabilities)) for r in after] == [
        (r.cycle.onset, r.cycle.end, r.label, dict(r.probabilities)) for r in fresh
    ]
    indices = [r.cycle.index for r in results(events)]
    assert indices == list(range(len(indices)))


def test_a_gap_comes_before_what_it_ends(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    stream.accept(phantom()[:18_000])
    events = stream.accept(AudioBlock(phantom()[20_000:], RATE, 20_000, lost_before=2000))
    assert isinstance(events[0], Gap)


def test_a_jump_that_nobody_counted_is_a_gap_too(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    stream.accept(AudioBlock(phantom()[:4000], RATE, 0))
    events = stream.accept(AudioBlock(phantom()[5000:9000], RATE, 5000))
    assert events[0] == Gap(4000, 1000, RATE)


def test_samples_lost_before_the_first_block_are_a_gap(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    assert stream.accept(AudioBlock(phantom()[:4000], RATE, 500, lost_before=500))[0] == Gap(0, 500, RATE)
    assert stream.stats.samples_lost == 500


@pytest.mark.requirement("AUD-1")
def test_many_gaps_are_all_counted(bundle: Bundle) -> None:
    rng = np.random.default_rng(5)
    samples, stream, events = phantom(seconds=20.0), bundle.stream(RATE), []
    begin = dropped_in_all = 0
    gaps = []
    while begin < samples.size:
        size, dropped = int(rng.integers(1, 5000)), int(rng.integers(0, 2)) * int(rng.integers(1, 900))
        if begin + dropped >= samples.size:
            break
        if dropped:
            gaps.append(Gap(begin, dropped, RATE))
        begin += dropped
        dropped_in_all += dropped
        block = samples[begin : begin + size]
        events += stream.accept(AudioBlock(block, RATE, begin, lost_before=dropped))
        begin += block.size
    events += stream.finish()
    assert len(gaps) > 5
    assert [e for e in events if isinstance(e, Gap)] == gaps
    assert stream.stats.samples_lost == dropped_in_all
    cycles = [r.cycle for r in results(events)]
    assert all(first.end <= second.onset for first, second in pairwise(cycles))


def test_time_cannot_run_backwards(bundle: Bundle) -> None:
    stream = bundle.stream(RATE)
    stream.accept(AudioBlock(phantom()[:4000], RATE, 0))
    with pytest.raises(StreamError, match="backwards"):
        stream.accept(AudioBlock(phantom()[:4000], RATE, 3999))
    with pytest.raises(StreamError, match="lost before it"):
        stream.accept(AudioBlock(phantom()[:4000], RATE, 4100, lost_before=99))
    assert stream.stats.samples_in == 4000


def bundle_events(bundle: Bundle, samples: Samples) -> list[Event]:
    stream = bundle.stream(RATE)
    return stream.accept(samples) + stream.finish()


def test_quality_is_emitted_again_after_a_gap(bundle: Bundle) -> None:
    events, _ = with_gap(bundle, phantom(), 24_000, 100)
    assert [e.at for e in events if isinstance(e, QualityEvent)] == [0, 24_100]
