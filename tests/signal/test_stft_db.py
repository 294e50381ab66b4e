"""The ``stft-db`` front end is torch.stft, torchaudio's Slaney bands and 10 log10, in numpy and in torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from msgspec.structs import replace
from torchaudio.functional import melscale_fbanks

from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.signal.logmel import LogMel, features, log_mel, stft_matrices
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import export_front_end, finish

Samples = npt.NDArray[np.float32]

HTSAT = FrontEndSpec(
    kind="stft-db",
    rate_hz=32000,
    window_s=10.0,
    frame_samples=1024,
    hop_samples=320,
    mel_bins=64,
    low_hz=50.0,
    high_hz=14000.0,
    preemphasis=0.0,
    remove_dc=False,
    log_floor=1e-10,
    normalisation="none",
)
SMALL = replace(HTSAT, rate_hz=4000, window_s=2.5, frame_samples=200, hop_samples=64, mel_bins=20, high_hz=1800.0)


def _reference(samples: Samples, spec: FrontEndSpec) -> npt.NDArray[np.float64]:
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        n_fft=spec.frame_samples,
        hop_length=spec.hop_samples,
        window=torch.hann_window(spec.frame_samples, periodic=True, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    bank = melscale_fbanks(
        spec.frame_samples // 2 + 1, spec.low_hz, spec.high_hz, spec.mel_bins, spec.rate_hz, "slaney", "slaney"
    )
    power = spectrum.abs() ** 2
    decibels: npt.NDArray[np.float64] = 10 * torch.log10((bank.double().T @ power).clamp(min=1e-10)).numpy()
    return decibels


@cache
def _clips(data_root: Path, spec: FrontEndSpec) -> tuple[Samples, ...]:
    clips = []
    for corpus in ("sprsound", "kauh", "hls_cmds"):
        samples, rate = soundfile.read(sorted((data_root / corpus).rglob("*.flac"))[3], dtype="float32", frames=60_000)
        clips.append(fit_window(resample(samples, rate, spec.rate_hz), spec))
    return tuple(clips)


@pytest.mark.parametrize("spec", [HTSAT, SMALL], ids=["32 kHz", "4 kHz"])
def test_numpy_and_the_folded_convolution_equal_torch_stft_on_real_recordings(
    spec: FrontEndSpec, data_root: Path
) -> None:
    for clip in _clips(data_root, spec):
        expected = _reference(clip, spec)
        assert expected.shape == (spec.mel_bins, spec.frames)
        numpy_picture = log_mel(clip, spec)
        with torch.no_grad():
            torch_picture = FoldedFrontEnd(spec).log_mel(torch.from_numpy(clip)[None])[0].numpy()
        audible = expected > -80.0  # float32 cannot follow the reference into the faintest bins beside the loud ones
        assert audible.mean() > 0.2
        assert np.abs(numpy_picture - expected).max() <= 0.02  # the reference's bands are float32
        assert np.abs(numpy_picture - expected).mean() <= 1e-4
        assert np.abs(torch_picture - expected)[audible].max() <= 0.02
        assert np.abs(torch_picture - expected)[audible].mean() <= 1e-3


def test_slaney_bands_follow_the_published_formulas() -> None:
    """Linear below 1 kHz, logarithmic above; every triangle has unit area."""
    mel = stft_matrices(HTSAT)[1]
    reference = melscale_fbanks(513, 50.0, 14000.0, 64, 32000, "slaney", "slaney").numpy()
    np.testing.assert_allclose(mel, reference, atol=1e-7)
    hz = np.arange(513) * 31.25
    step = np.log(6.4) / 27
    edges = np.linspace(50 * 3 / 200, 15 + np.log(14.0) / step, 66)
    edges = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp(step * (edges - 15)))
    band = 40
    left, centre, right = edges[band : band + 3]
    np.testing.assert_allclose(
        mel[:, band], np.interp(hz, [left, centre, right], [0, 1, 0]) * 2 / (right - left), atol=1e-12
    )


def test_frames_are_centred_on_the_hops() -> None:
    assert HTSAT.window_samples == 320_000
    assert HTSAT.frames == 1001
    assert HTSAT.fft_size == 1024
    assert replace(HTSAT, frame_samples=1000).fft_size == 1000  # no padding to a power of two
    click = np.zeros(HTSAT.window_samples, dtype=np.float32)
    click[500 * 320] = 0.5
    assert log_mel(click, HTSAT).max(axis=0).argmax() == 500


def test_silence_lies_on_the_floor() -> None:
    silence = np.zeros(SMALL.window_samples, dtype=np.float32)
    np.testing.assert_allclose(features(silence, SMALL), -100.0)
    assert log_mel(silence[:100], SMALL).shape == (20, 0)  # half a frame cannot be reflected


def test_scale_is_counted_in_decibels() -> None:
    noise = (np.random.default_rng(0).standard_normal(SMALL.window_samples) * 0.1).astype(np.float32)
    shifted = log_mel(noise, replace(SMALL, scale=32768.0)) - log_mel(noise, SMALL)
    np.testing.assert_allclose(shifted, 20 * np.log10(32768.0), atol=1e-4)


def test_steps_of_the_other_kind_are_refused() -> None:
    for changes in ({"preemphasis": 0.97}, {"remove_dc": True}, {"window_type": "povey"}):
        with pytest.raises(ValueError, match="preemphasis: 0 and remove_dc: false"):
            FoldedFrontEnd(replace(SMALL, **changes))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole clip"):
        LogMel(SMALL)


def test_the_exported_front_end_gives_the_picture_of_numpy() -> None:
    graph = export_front_end(SMALL)
    finish(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pcm = (np.random.default_rng(0).standard_normal((3, SMALL.window_samples)) * 0.1).astype(np.float32)
    for count in (1, 3):
        pictures = session.run(None, {"pcm": pcm[:count]})[0]
        assert pictures.shape == (count, 1, SMALL.mel_bins, SMALL.frames)
        np.testing.assert_allclose(pictures[:, 0], [features(clip, SMALL) for clip in pcm[:count]], atol=1e-3)


def test_a_new_kind_left_the_digests_of_the_old_one_alone() -> None:
    """Bundles already shipped carry these fields and no others."""
    assert FrontEndSpec().digest == "549ddbb2e0a4ce7fb3a6ec1bdf3002c3dc68316532a22aeaf6585ec3fbc9ed7d"
