"""The incremental log-mel extractor and the normalisations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_sdk.signal.logmel import LogMel, features, kaldi_matrices, log_mel, normalise
from edge_sdk.signal.spec import FrontEndSpec

SPEC = FrontEndSpec()
NOISE = np.random.default_rng(0).normal(0.0, 0.05, 4000).astype(np.float32)


@given(cuts=st.lists(st.integers(0, NOISE.size), max_size=30), hop=st.sampled_from([1, 40, 128, 300]))
@pytest.mark.parametrize(("single", "tolerance"), [(False, 2e-6), (True, 1e-3)])  # single: of bins near the floor
def test_frames_do_not_depend_on_block_sizes(cuts: list[int], hop: int, single: bool, tolerance: float) -> None:
    spec = replace(SPEC, hop_samples=hop)  # 300: hop longer than the frame
    extractor = LogMel(spec, single=single)
    parts = [extractor.accept(block) for block in np.split(NOISE, sorted(cuts))]
    np.testing.assert_allclose(np.concatenate(parts).T, log_mel(NOISE, spec), atol=tolerance)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, frame_samples=1024, hop_samples=400), replace(SPEC, mel_bins=1)])
def test_single_precision_gives_the_same_energies(spec: FrontEndSpec) -> None:
    found = LogMel(spec, single=True).accept(NOISE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.T, log_mel(NOISE, spec), atol=2e-4)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 167, 168, 4000])
def test_frame_count_is_kaldis(size: int) -> None:
    expected = 0 if size < 128 else 1 + (size - 128) // 40
    assert log_mel(NOISE[:size], SPEC).shape == (64, expected)
    assert SPEC.frames_of(size) == expected


def test_reset_forgets_the_remainder() -> None:
    extractor = LogMel(SPEC)
    extractor.accept(NOISE[:777])
    extractor.reset()
    np.testing.assert_array_equal(extractor.accept(NOISE).T, log_mel(NOISE, SPEC))


def test_long_recordings_are_analysed_in_slices_with_the_same_result() -> None:
    long = np.tile(NOISE, 25)  # 100 000 samples: 2497 frames, more than one slice
    picture = log_mel(long, SPEC)
    assert picture.shape == (64, SPEC.frames_of(long.size))
    np.testing.assert_allclose(picture[:, 2300:2310], log_mel(long[2300 * 40 :], SPEC)[:, :10], atol=2e-6)


def test_a_tone_lands_in_its_mel_bin() -> None:
    tone = np.sin(2 * np.pi * 500.0 * np.arange(4000) / 4000).astype(np.float32)
    loudest = int(np.argmax(log_mel(tone, SPEC).mean(axis=1)))
    mel = 1127 * np.log1p(np.array([SPEC.low_hz, 500.0, SPEC.high_hz]) / 700)
    assert loudest == pytest.approx((mel[1] - mel[0]) / (mel[2] - mel[0]) * 65 - 1, abs=1)


def test_silence_gives_the_floor_and_nothing_infinite() -> None:
    picture = log_mel(np.zeros(1000, dtype=np.float32), SPEC)
    assert np.all(picture == np.float32(np.log(SPEC.log_floor)))


def test_a_constant_offset_does_not_reach_the_picture() -> None:
    np.testing.assert_allclose(log_mel(NOISE + np.float32(0.5), SPEC), log_mel(NOISE, SPEC), atol=1e-3)


def test_scale_shifts_the_log() -> None:
    shifted = log_mel(NOISE, replace(SPEC, scale=32768.0)) - log_mel(NOISE, SPEC)
    np.testing.assert_allclose(shifted, 2 * np.log(32768.0), atol=1e-4)


def test_matrices_are_float64_shared_and_read_only() -> None:
    dft, mel = kaldi_matrices(SPEC)
    assert dft.shape == (128, 2 * 65)
    assert mel.shape == (65, 64)
    assert dft.dtype == mel.dtype == np.float64
    assert kaldi_matrices(replace(SPEC))[0] is dft
    assert not dft.flags.writeable
    assert not mel.flags.writeable


def test_only_kaldi_features_are_streamed() -> None:
    with pytest.raises(ValueError, match="stft-db"):
        LogMel(replace(SPEC, kind="stft-db"))


def test_fixed_normalisation_standardises() -> None:
    picture = log_mel(NOISE, SPEC)
    spec = replace(SPEC, normalisation="fixed", mean=-3.0, std=2.0)
    np.testing.assert_allclose(features(NOISE, spec), (picture + 3.0) / 2.0, rtol=1e-6)


def test_no_normalisation_leaves_the_picture() -> None:
    np.testing.assert_array_equal(features(NOISE, replace(SPEC, normalisation="none")), log_mel(NOISE, SPEC))


def test_instance_normalisation_removes_level_and_frequency_response() -> None:
    spec = replace(SPEC, normalisation="instance", relax=0.0, norm_eps=0.0)
    picture = log_mel(NOISE, SPEC)
    tilted = picture + np.linspace(-4.0, 4.0, 64, dtype=np.float32)[:, None] + 2.5
    np.testing.assert_allclose(normalise(tilted, spec), normalise(picture, spec), atol=1e-4)
    assert normalise(picture, spec).std() == pytest.approx(1.0, abs=1e-4)


def test_full_relaxation_keeps_the_differences_between_bins() -> None:
    spec = replace(SPEC, normalisation="instance", relax=1.0)
    picture = log_mel(NOISE, SPEC)
    expected = (picture - picture.mean()) / (picture.std() + spec.norm_eps)
    np.testing.assert_allclose(normalise(picture, spec), expected, atol=1e-5)


def test_centred_normalisation_divides_by_the_fixed_deviation() -> None:
    spec = replace(SPEC, normalisation="centred", relax=0.0, std=2.0)
    picture = log_mel(NOISE, SPEC)
    np.testing.assert_allclose(normalise(picture, spec), (picture - picture.mean(axis=1, keepdims=True)) / 2, atol=1e-5)
