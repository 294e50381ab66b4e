"""The load test ends at the first level that misses, measures only settled levels, and growth in turns."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.core.audio import PreloadedRecording, phantom_recordings
from benchmarks.core.harness import Row
from benchmarks.stream import load_generators
from benchmarks.stream.load_generators import (
    SETTLE_S,
    GroupLoadGenerator,
    LevelResult,
    LoadGenerator,
    SessionLoadGenerator,
    StreamLoadGenerator,
    _Lateness,
    busy_s,
)
from benchmarks.stream.parallel import RampOptions, even_levels, ramp
from edge_sdk.events import AudioBlock
from edge_sdk.runtime.bundle.load import Bundle, load_bundle

RATE = 4000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("default")


class FakeLoadGenerator:
    """Carries ``most`` streams; every hold of a level costs a little more than the one before."""

    kind = "streams"

    def __init__(self, most: int, *, others: float = 0.0) -> None:
        self.most, self.others = most, others
        self.held: list[int] = []

    def hold(self, count: int, seconds: float) -> LevelResult:
        self.held.append(count)
        late = 0.01 if count <= self.most else 0.2
        return LevelResult((0.001, late), 0.1 + 0.01 * count, 50.0 + 2.0 * count, self.others)


def rows(load: FakeLoadGenerator, bundle: Bundle, **options: Any) -> dict[str, list[Row]]:
    made: dict[str, list[Row]] = {}
    for row in ramp(load, bundle, RampOptions(steady_s=0.0, **options), lambda _: None):
        made.setdefault(row["subject"]["part"], []).append(row)
    return made


def test_the_ramp_ends_at_the_first_level_that_misses_twice(bundle: Bundle) -> None:
    load = FakeLoadGenerator(most=4)
    made = rows(load, bundle, levels=(1, 2, 4, 8, 16), repeats=0)
    assert load.held == [1, 2, 4, 8, 8]
    (growth,) = made["growth of streams"]
    assert (growth["most_without_miss"], growth["missed_at"]) == (4, 8)
    assert [row["misses"] for row in made["streams"]] == [0, 0, 0, 1, 1]


def test_growth_is_measured_at_evenly_spaced_levels_in_turns_up_and_down(bundle: Bundle) -> None:
    load = FakeLoadGenerator(most=100)
    (growth,) = rows(load, bundle, levels=(1, 2, 64, 96), repeats=2, growth_to=64)["growth of streams"]
    there = even_levels(64)
    assert there == [1, 14, 26, 39, 51, 64]
    assert load.held[4:] == [*there, *reversed(there)]
    assert growth["cpu_load_per_stream"] == pytest.approx(0.01)
    assert growth["cpu_load_at_none"] == pytest.approx(0.1)
    assert growth["mb_per_stream"] == pytest.approx(2.0)
    assert growth["n"] == 12 and growth["cpu_r2"] == pytest.approx(1.0)


def test_a_miss_while_others_used_the_core_is_marked_disturbed(bundle: Bundle) -> None:
    alone, disturbed = (
        rows(FakeLoadGenerator(1, others=o), bundle, levels=(1, 2), repeats=0)["streams"] for o in (0.0, 0.5)
    )
    assert [row["disturbed"] for row in alone] == [False, False, False]
    assert [row["disturbed"] for row in disturbed] == [False, True, True]


def test_ctrl_c_in_the_ramp_keeps_its_levels_and_their_growth(bundle: Bundle) -> None:
    class Stopped(FakeLoadGenerator):
        def hold(self, count: int, seconds: float) -> LevelResult:
            if count == 8:
                raise KeyboardInterrupt
            return super().hold(count, seconds)

    made: list[Row] = []
    with pytest.raises(KeyboardInterrupt):
        made.extend(ramp(Stopped(100), bundle, RampOptions((1, 2, 4, 8, 16)), lambda _: None))
    assert [row.get("streams") for row in made] == [1, 2, 4, None]
    assert made[-1]["most_without_miss"] == 4 and made[-1]["cpu_load_per_stream"] == pytest.approx(0.01)


def test_sessions_that_are_interrupted_are_closed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(at_ns: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    monkeypatch.setattr(load_generators, "_sleep_until", interrupt)
    load = SessionLoadGenerator(bundle, list(phantom_recordings(8.0, RATE)), block_s=0.05)
    with pytest.raises(KeyboardInterrupt):
        load.hold(2, 60.0)
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["streams", "batched streams", "sessions"])
def test_a_level_counts_every_settled_block_of_every_stream(bundle: Bundle, kind: str) -> None:
    recordings = list(phantom_recordings(8.0, RATE))
    made: LoadGenerator = SessionLoadGenerator(bundle, recordings, block_s=0.05)
    if kind != "sessions":
        generator = StreamLoadGenerator if kind == "streams" else GroupLoadGenerator
        made = generator(bundle, recordings, block_s=0.05, fill_s=0.1)
        assert made.kind == kind
    held = made.hold(3, 0.5)
    assert 3 * 9 <= len(held.seconds) <= 3 * 11  # ten blocks each; a session's first and last may straddle the span
    assert min(held.seconds) >= 0
    assert 0 < held.cpu_load < 2
    assert SETTLE_S >= 0.5


def test_only_blocks_of_the_measured_span_count() -> None:
    """All sessions begin and end at once, which is no part of the load."""
    late = _Lateness(from_ns=100, end_ns=200)
    for captured_ns in (99, 100, 199, 200):
        late.audio(AudioBlock(np.zeros(4, np.float32), RATE, host_ns=captured_ns))
    assert len(late.seconds) == 2


def test_streams_are_at_different_positions_in_their_steps(bundle: Bundle) -> None:
    load = StreamLoadGenerator(
        bundle, [PreloadedRecording("x", "x", np.zeros(RATE, np.float32), RATE)], block_s=0.05, fill_s=0.1
    )
    load.hold(8, 0.05)
    received = [stream.stats.samples_in for stream, _, _ in load._streams]
    assert len({n % 200 for n in received}) == 8


def test_busy_time_is_read_from_the_counters_of_the_cores(tmp_path: Path) -> None:
    counters = tmp_path / "stat"
    counters.write_text("cpu  9 9 9 9 9 9 9 9\ncpu0 100 0 50 900 7 1 2 47 0 0\ncpu1 1 0 0 5 0 0 0 0 0 0\nintr 5\n")
    assert busy_s([0], counters) == pytest.approx(2.0)
    assert busy_s([0, 1], counters) == pytest.approx(2.01)
    assert busy_s([0], tmp_path / "none") is None
