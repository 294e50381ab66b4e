"""The sample clock: exact conversions, deadlines that do not drift."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.signal.clock import SampleClock, convert_index

RATES = st.sampled_from([4000, 8000, 11025, 16000, 44100, 48000, 96000])


@given(index=st.integers(0, 2**62), source=RATES, target=RATES)
def test_conversion_is_exact_rounding_half_up(index: int, source: int, target: int) -> None:
    assert convert_index(index, source, target) == floor(Fraction(index * target, source) + Fraction(1, 2))


@given(index=st.integers(0, 2**62), source=RATES)
def test_converting_up_and_back_returns_the_index(index: int, source: int) -> None:
    assert convert_index(convert_index(index, source, 96000), 96000, source) == index


def test_halves_are_rounded_up() -> None:
    assert [convert_index(i, 8000, 4000) for i in range(5)] == [0, 1, 1, 2, 2]


def test_seconds_and_indices_agree() -> None:
    clock = SampleClock(44100)
    assert clock.seconds(44100 * 3600) == 3600.0
    assert all(clock.index(clock.seconds(i)) == i for i in (0, 1, 12345, 44100 * 86400 + 1))
    assert clock.convert(44100, 4000) == 4000


@pytest.mark.parametrize("rate", [4000, 11025, 44100])
def test_deadlines_do_not_drift_in_a_week(rate: int) -> None:
    clock = SampleClock(rate, start_ns=17)
    week = 7 * 86400
    assert clock.deadline_ns(week * rate) == 17 + week * 10**9
    assert 0 <= clock.deadline_ns(week * rate + 1) - clock.deadline_ns(week * rate) - 10**9 // rate <= 1


def test_speed_shortens_deadlines() -> None:
    assert SampleClock(4000, speed=4.0, start_ns=100).deadline_ns(4000) == 100 + 250_000_000


@pytest.mark.parametrize("arguments", [{"rate_hz": 0}, {"rate_hz": 4000, "speed": 0.0}, {"rate_hz": 1, "speed": -1.0}])
def test_impossible_clocks_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        SampleClock(**arguments)  # type: ignore[arg-type]
