"""A stream of a file computes seconds at once: the events are those of a live stream, whatever the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

import edge_sdk
from edge_sdk.events import AudioBlock, BreathCycle, CycleResult, Event, Verdict
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.sources.phantom import PhantomSource
from tests.runtime.conftest import assert_same

RATES = [4000, 8000, 11025, 44100]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return edge_sdk.load_bundle()


def _breaths(scenario: str, seconds: float, rate: int, seed: int) -> npt.NDArray[np.float32]:
    source = PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=rate)
    return np.concatenate([block.samples for block in source]).astype(np.float32)


def _events(bundle: Bundle, blocks: Sequence[AudioBlock], *, offline: bool) -> list[Event]:
    stream = bundle.stream(blocks[0].sample_rate, offline=offline)
    events = [event for block in blocks for event in stream.accept(block)]
    return [*events, *stream.finish()]


def _blocks(
    samples: npt.NDArray[np.float32], rate: int, size: int, gap: tuple[int, int] | None = None
) -> list[AudioBlock]:
    """Blocks of ``size`` samples; ``gap``: those from the first to the second sample are lost."""
    kept = [(0, samples.size)] if gap is None else [(0, gap[0]), (gap[1], samples.size)]
    lost = 0 if gap is None else gap[1] - gap[0]
    return [
        AudioBlock(samples[at : min(at + size, end)], rate, at, lost_before=lost if at == begin and begin else 0)
        for begin, end in kept
        for at in range(begin, end, size)
    ]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("gap", [None, (3.1, 3.4)])
def test_a_file_has_the_events_of_its_live_stream(bundle: Bundle, rate: int, gap: tuple[float, float] | None) -> None:
    samples = _breaths("asthma", 13.3, rate, 3)
    lost = None if gap is None else (round(gap[0] * rate), round(gap[1] * rate))
    live = _events(bundle, _blocks(samples, rate, rate // 10, lost), offline=False)
    offline = _events(bundle, _blocks(samples, rate, 5 * rate, lost), offline=True)
    assert len(live) == len(offline)
    for one, other in zip(live, offline, strict=True):
        assert_same(one, other)
    kinds = {type(event) for event in offline}
    assert {BreathCycle, CycleResult, Verdict} <= kinds


def test_blocks_change_no_bit_of_a_file(bundle: Bundle) -> None:
    samples = _breaths("copd", 11.0, 8000, 4)
    whole = _events(bundle, _blocks(samples, 8000, samples.size), offline=True)
    assert whole == _events(bundle, _blocks(samples, 8000, 777), offline=True)


def test_a_tick_is_a_step_of_the_segmenter(bundle: Bundle) -> None:
    """No rate makes the ticks drift: provisional cycles come in the block that completes a step."""
    for rate in (4000, 8000, 7919, 44100):
        stream = bundle.stream(rate)
        samples = _breaths("healthy", 8.0, rate, 5)
        emitted = [
            event.emitted_at
            for at in range(0, samples.size, 40)
            for event in stream.accept(samples[at : at + 40])
            if isinstance(event, BreathCycle)
        ]
        first = min(emitted)
        steps = [(at - first) / rate / 0.08 for at in emitted]
        assert all(abs(step - round(step)) < 2 / (0.08 * rate) for step in steps), rate


def test_the_verdict_gives_the_rate_of_the_summary() -> None:
    screening = edge_sdk.screen((_breaths("healthy", 25.0, 4000, 6), 4000))
    verdicts = [event for event in screening.events if isinstance(event, Verdict)]
    rate = screening.summary["respiratory_rate_bpm"]
    assert 5 < rate < 40
    assert (verdicts[-1].respiratory_rate_bpm, verdicts[-1].respiratory_rate_confident) == (
        rate, screening.summary["respiratory_rate_confident"],
    )  # fmt: skip
    assert verdicts[0].respiratory_rate_bpm is not None and not verdicts[0].final
