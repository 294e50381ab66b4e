"""Fitting a breath into the classifier's window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec

SPEC = FrontEndSpec(rate_hz=1000, window_s=1.0, high_hz=500.0)  # 1000 samples


def _ramp(size: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(1, size + 1, dtype=np.float32)


@given(size=st.integers(1, 2500), pad=st.sampled_from(["cyclic", "zero"]), crop=st.sampled_from(["centre", "start"]))
def test_result_always_fills_the_window(size: int, pad: str, crop: str) -> None:
    spec = replace(SPEC, pad_mode=pad, crop=crop, fade_s=0.02)  # type: ignore[arg-type]
    fitted = fit_window(_ramp(size), spec)
    assert fitted.shape == (1000,)
    assert fitted.dtype == np.float32


def test_short_cycles_are_repeated() -> None:
    fitted = fit_window(_ramp(300), SPEC)
    np.testing.assert_array_equal(fitted, np.concatenate((_ramp(300), _ramp(300), _ramp(300), _ramp(100))))


def test_short_cycles_are_followed_by_zeros() -> None:
    fitted = fit_window(_ramp(300), replace(SPEC, pad_mode="zero"))
    np.testing.assert_array_equal(fitted[:300], _ramp(300))
    assert not fitted[300:].any()


@pytest.mark.parametrize(("crop", "first"), [("centre", 251), ("start", 1)])
def test_long_cycles_are_cropped(crop: str, first: int) -> None:
    fitted = fit_window(_ramp(1500), replace(SPEC, crop=crop))  # type: ignore[arg-type]
    np.testing.assert_array_equal(fitted, np.arange(first, first + 1000, dtype=np.float32))


def test_an_exact_fit_is_a_copy() -> None:
    samples = _ramp(1000)
    fitted = fit_window(samples, SPEC)
    np.testing.assert_array_equal(fitted, samples)
    fitted[0] = -1
    assert samples[0] == 1


def test_fades_are_raised_cosines_at_both_ends_of_every_repetition() -> None:
    fitted = fit_window(np.ones(400, dtype=np.float32), replace(SPEC, fade_s=0.1))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(100) + 0.5) / 100)
    np.testing.assert_allclose(fitted[:100], ramp, rtol=1e-6)
    np.testing.assert_allclose(fitted[300:400], ramp[::-1], rtol=1e-6)
    np.testing.assert_array_equal(fitted[400:800], fitted[:400])


def test_fades_never_overlap_in_very_short_cycles() -> None:
    fitted = fit_window(np.ones(10, dtype=np.float32), replace(SPEC, fade_s=0.5, pad_mode="zero"))
    np.testing.assert_allclose(fitted[:5], fitted[9:4:-1])
    assert 0 < fitted[0] < fitted[4] < 1


def test_the_input_is_never_changed() -> None:
    samples = np.ones(2000, dtype=np.float32)
    fit_window(samples, replace(SPEC, fade_s=0.2))
    assert samples.min() == 1


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_nothing_and_several_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="fit_window"):
        fit_window(np.zeros(shape, dtype=np.float32), SPEC)
