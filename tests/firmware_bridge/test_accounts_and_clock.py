"""Dropped samples are counted exactly; the device's clock is estimated despite jitter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.clock import ClockFitter
from firmware_bridge.sample_account import Placement, ResumePoint, SampleAccount, SequenceAccount


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=60), st.integers(0, 2**63))
def test_received_and_missing_add_up_to_the_sample(blocks: list[tuple[int, bool]], origin: int) -> None:
    account = SampleAccount()
    account.begin(7, 0)
    index = received = 0
    for count, arrives in blocks:
        if arrives:
            account.place(index, count, 7, 0, 16000)
            received += count
        index += count
    account.end(index, 7)
    assert (account.received, account.missing) == (received, index - received)


def test_a_host_that_joins_late_misses_nothing_and_repeated_samples_are_skipped() -> None:
    account = SampleAccount()
    assert account.place(1_000_000, 160, 7, 0, 16000) == Placement(0, 0, True)
    assert account.place(1_000_100, 160, 7, 0, 16000) == Placement(0, 60, True)
    assert account.place(1_000_000, 160, 7, 0, 16000) == Placement(0, 160, True)
    assert account.place(1_000_270, 10, 7, 0, 16000) == Placement(10, 0, True)
    assert (account.received, account.missing, account.gaps) == (160 + 100 + 10, 10, 1)


def test_over_a_reconnection_the_gap_is_exact_while_the_clock_ran_and_estimated_if_it_restarted() -> None:
    before = ResumePoint(clock_id=7, next_index=32_000, host_ns=2_000_000_000)
    same = SampleAccount(before).place(56_160, 160, 7, 3_520_000_000, 16000)
    assert same == Placement(24_160, 0, True)
    restarted = SampleAccount(before).place(0, 160, 8, 3_510_000_000, 16000)
    assert restarted == Placement(24_000, 0, False)


@pytest.mark.parametrize("index", [1 << 50, (1 << 64) - 200])
def test_an_index_that_no_clock_can_have_reached_is_of_another_count(index: int) -> None:
    """Or a gap of thousands of years would be written into the recording as silence."""
    account = SampleAccount(ResumePoint(clock_id=7, next_index=32_000, host_ns=2_000_000_000))
    assert account.place(index, 160, 7, 2_510_000_000, 16000) == Placement(8000, 0, False)
    assert account.place(index + 160, 160, 7, 2_520_000_000, 16000) == Placement(0, 0, True)
    assert account.place(40_320, 160, 7, 2_530_000_000, 16000) == Placement(0, 0, False), "and back"
    assert account.end(index, 7, 2_540_000_000) == 0
    assert account.end(40_500, 7, 2_540_000_000) == 20


def test_the_sequence_number_wraps() -> None:
    account = SequenceAccount()
    assert [account.count(seq) for seq in (65533, 65534, 65535, 0, 1, 5, 5, 6)] == [0, 0, 0, 0, 0, 3, 0, 0]
    assert account.missing == 3


@pytest.mark.parametrize("ppm", [-300.0, 0.0, 50.0, 2000.0])
def test_rate_error_and_offset_are_found_through_jitter_and_outliers(ppm: float) -> None:
    rng = np.random.default_rng(5)
    fitter = ClockFitter(16000.0)
    true_rate, start_ns = 16000.0 * (1 + ppm * 1e-6), 5_000_000_000_000_000
    for block in range(1, 6001):  # one minute of 10 ms blocks
        captured = start_ns + block * 160 * 1e9 / true_rate
        delay = rng.exponential(4e6) + (rng.random() < 0.02) * 150e6
        fitter.add(block * 160, round(captured + 500_000 + delay))
    fit = fitter.fit
    assert fit.ppm == pytest.approx(ppm, abs=8)
    late = [fit.host_ns(i) - (start_ns + i * 1e9 / true_rate) for i in (0, 480_000, 960_000)]
    assert all(-0.3e6 < error < 2e6 for error in late)  # ns: the least delay is 0.5 ms
    assert fit.points > 200


def test_before_there_is_enough_to_fit_the_nominal_rate_holds() -> None:
    fitter = ClockFitter(4000.0)
    assert (fitter.fit.ppm, fitter.fit.points) == (0.0, 0)
    fitter.add(40, 1_010_000_000)
    assert fitter.fit.host_ns(40) == 1_010_000_000
    assert fitter.fit.host_ns(80) == 1_020_000_000
