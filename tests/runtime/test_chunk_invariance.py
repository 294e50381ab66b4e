"""Block sizes change nothing: the events are a pure function of the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_sdk.events import AudioBlock, CycleResult, Event
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from tests.runtime.conftest import phantom
from tests.support.tiny_bundle import write_tiny_bundle

Samples = npt.NDArray[np.float32]
RATES = (4000, 8000, 16000, 44100)
_SIZE = st.one_of(st.integers(1, 8000), st.sampled_from([1, 2, 79, 80, 81, 160, 882, 8000]))
SIZES = st.lists(_SIZE, min_size=1, max_size=40)


def cut(samples: Samples, sizes: Sequence[int]) -> Iterator[Samples]:
    """Blocks of the given sizes, over and over; tiny ones only for the first 2000 samples, to keep the test quick."""
    begin = turn = 0
    while begin < samples.size:
        size = sizes[turn % len(sizes)]
        if begin > 2000:
            size = max(size, 37)
        yield samples[begin : begin + size]
        begin += size
        turn += 1


def events_of(bundle: Bundle, samples: Samples, rate: int, sizes: Sequence[int]) -> list[Event]:
    stream = bundle.stream(rate)
    events = [event for block in cut(samples, sizes) for event in stream.accept(block)]
    return events + stream.finish()


@pytest.fixture(scope="module")
def whole(bundle: Bundle, real_audio: Callable[[int], Samples]) -> dict[tuple[str, int], tuple[Samples, list[Event]]]:
    """Events of every recording at every rate, pushed through as one block."""
    recordings = {("phantom", rate): phantom("pneumonia", 9.0, rate) for rate in RATES}
    recordings |= {("real", rate): real_audio(rate) for rate in RATES}
    found = {}
    for (kind, rate), samples in recordings.items():
        stream = bundle.stream(rate)
        found[kind, rate] = samples, stream.accept(samples) + stream.finish()
    return found


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["phantom", "real"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(sizes=[1])
@example(sizes=[8000])
@example(sizes=[1, 8000, 3])
@given(sizes=SIZES)
@pytest.mark.requirement("AUD-2")
def test_any_block_sizes_give_identical_events(
    bundle: Bundle,
    whole: dict[tuple[str, int], tuple[Samples, list[Event]]],
    kind: str,
    rate: int,
    sizes: list[int],
) -> None:
    samples, expected = whole[kind, rate]
    assert any(isinstance(event, CycleResult) and event.label for event in expected)
    assert events_of(bundle, samples, rate, sizes) == expected


@pytest.mark.requirement("AUD-2")
def test_sample_by_sample_from_end_to_end(bundle: Bundle) -> None:
    samples, stream, events = phantom(), bundle.stream(4000), []
    for i in range(samples.size):
        events += stream.accept(samples[i : i + 1])
    assert events + stream.finish() == events_of(bundle, samples, 4000, [samples.size])


def test_empty_blocks_change_nothing(bundle: Bundle) -> None:
    samples = phantom()
    stream = bundle.stream(4000)
    nothing = np.zeros(0, np.float32)
    events = stream.accept(nothing)
    for block in cut(samples, [999]):
        events += stream.accept(block) + stream.accept(nothing)
    assert events + stream.finish() == events_of(bundle, samples, 4000, [4000])


def test_indices_beyond_32_bits_are_exact(bundle: Bundle) -> None:
    samples, far = phantom(), (1 << 31) - 5000
    near_events = events_of(bundle, samples, 4000, [500])
    stream = bundle.stream(4000)
    far_events: list[Event] = []
    for begin in range(0, samples.size, 500):
        far_events += stream.accept(AudioBlock(samples[begin : begin + 500], 4000, far + begin))
    far_events += stream.finish()
    near = [e.cycle for e in near_events if isinstance(e, CycleResult)]
    moved = [e.cycle for e in far_events if isinstance(e, CycleResult)]
    assert moved[-1].end > 1 << 31
    assert [(c.onset + far, c.end + far, c.emitted_at + far) for c in near] == [
        (c.onset, c.end, c.emitted_at) for c in moved
    ]


@pytest.mark.parametrize(("model_rate", "segmenter_rate"), [(8000, 4000), (4000, 8000)])
def test_a_segmenter_at_its_own_rate_is_invariant_too(
    tmp_path_factory: pytest.TempPathFactory, model_rate: int, segmenter_rate: int
) -> None:
    folder = tmp_path_factory.mktemp("rates") / "bundle"
    write_tiny_bundle(folder, rate_hz=model_rate, segmenter_rate_hz=segmenter_rate)
    bundle = load_bundle(folder, allow_untrained=True)
    samples = phantom(rate=16000)
    expected = events_of(bundle, samples, 16000, [samples.size])
    assert sum(isinstance(event, CycleResult) for event in expected) >= 4
    assert events_of(bundle, samples, 16000, [1234, 7, 3000]) == expected
