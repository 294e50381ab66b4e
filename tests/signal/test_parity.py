"""One picture from three implementations: torchaudio's Kaldi fbank, incremental numpy, the folded torch convolution."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from torchaudio.compliance.kaldi import fbank

from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.logmel import LogMel, kaldi_matrices, log_mel
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec, WindowType

Samples = npt.NDArray[np.float32]

# A floor just above the quantisation noise of 16-bit recordings. Below it torchaudio's own float32 rounding exceeds
# the tolerance: see test_numpy_is_nearer_to_float64_than_the_reference_is.
QUIET = 1e-6


def _spec(rate: int, frame: int, hop: int, bins: int, window: WindowType, scale: float = 1.0) -> FrontEndSpec:
    return FrontEndSpec(
        rate_hz=rate,
        frame_samples=frame,
        hop_samples=hop,
        mel_bins=bins,
        low_hz=50.0,
        high_hz=rate / 2,
        window_type=window,
        scale=scale,
        log_floor=QUIET * scale**2,
    )


SPECS = [
    _spec(4000, 100, 40, 64, "povey"),
    _spec(4000, 128, 40, 64, "hanning"),
    _spec(4000, 128, 40, 64, "povey", scale=32768.0),
    _spec(4000, 200, 80, 40, "hanning"),
    _spec(4000, 256, 64, 48, "hanning", scale=32768.0),
    _spec(8000, 200, 80, 64, "hamming"),
    _spec(16000, 400, 160, 128, "povey"),
    _spec(16000, 400, 160, 128, "hanning"),
]


def _one_shot(samples: Samples, spec: FrontEndSpec) -> Samples:
    return log_mel(samples, spec)


def _incremental(samples: Samples, spec: FrontEndSpec, *, single: bool = False) -> Samples:
    extractor, rng, position = LogMel(spec, single=single), np.random.default_rng(3), 0
    frames = [extractor.accept(samples[:0])]
    while position < samples.size:
        size = int(rng.choice([0, 1, 7, 39, 40, 41, 128, 1000, 8000]))
        frames.append(extractor.accept(samples[position : position + size]))
        position += size
    return np.ascontiguousarray(np.concatenate(frames).T)


def _single(samples: Samples, spec: FrontEndSpec) -> Samples:
    return _incremental(samples, spec, single=True)


def _folded(samples: Samples, spec: FrontEndSpec) -> Samples:
    with torch.no_grad():
        picture: Samples = FoldedFrontEnd(spec).log_mel(torch.from_numpy(samples)[None])[0].numpy()
    return picture


def _torchaudio(samples: Samples, spec: FrontEndSpec) -> Samples:
    picture = fbank(
        torch.from_numpy(samples)[None] * spec.scale,
        sample_frequency=spec.rate_hz,
        frame_length=spec.frame_samples * 1000.0 / spec.rate_hz,
        frame_shift=spec.hop_samples * 1000.0 / spec.rate_hz,
        num_mel_bins=spec.mel_bins,
        low_freq=spec.low_hz,
        high_freq=spec.high_hz,
        window_type=spec.window_type,
        preemphasis_coefficient=spec.preemphasis,
        remove_dc_offset=spec.remove_dc,
        dither=0.0,
    )
    return np.maximum(picture.numpy().T, np.float32(np.log(spec.log_floor)))


def _float64(samples: Samples, spec: FrontEndSpec) -> npt.NDArray[np.float64]:
    """Kaldi's steps one after the other, nothing folded."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64) * spec.scale, spec.frame_samples)
    frames = frames[:: spec.hop_samples] - frames[:: spec.hop_samples].mean(axis=1, keepdims=True)
    frames = frames - spec.preemphasis * np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    window = np.hanning(spec.frame_samples) ** (0.85 if spec.window_type == "povey" else 1.0)
    power = np.abs(np.fft.rfft(frames * window, spec.fft_size)) ** 2
    return np.log(np.maximum(power @ kaldi_matrices(spec)[1].astype(np.float64), spec.log_floor)).T


@cache
def _recordings(data_root: Path, rate: int) -> tuple[Samples, ...]:
    """Ten seconds each of children and adults, three stethoscopes, all filters."""
    files: list[Path] = []
    for corpus, step in (("sprsound", 500), ("kauh", 25), ("hls_cmds", 130)):
        files += sorted((data_root / corpus).rglob("*.flac"))[::step]
    clips = []
    for path in files:
        samples, native = soundfile.read(path, dtype="float32", always_2d=True)
        clips.append(resample(samples[: 10 * native, 0], native, rate))
    return tuple(clips)


@pytest.mark.parametrize("implementation", [_one_shot, _incremental, _single, _folded])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.rate_hz}-{s.frame_samples}-{s.window_type}-scale{s.scale:g}")
@pytest.mark.requirement("RES-6")
def test_every_implementation_equals_torchaudio_kaldi_fbank_on_real_recordings(
    spec: FrontEndSpec, implementation: Callable[[Samples, FrontEndSpec], Samples], data_root: Path
) -> None:
    recordings = _recordings(data_root, spec.rate_hz)
    assert len(recordings) >= 15
    differences = []
    for samples in recordings:
        ours, theirs = implementation(samples, spec), _torchaudio(samples, spec)
        assert ours.shape == theirs.shape == (spec.mel_bins, spec.frames_of(samples.size))
        assert ours.dtype == np.float32
        differences.append(np.abs(ours - theirs).ravel())
    difference = np.concatenate(differences)
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-5


def test_numpy_meets_the_tolerance_at_kaldis_own_floor_too(data_root: Path) -> None:
    spec = FrontEndSpec(window_type="povey")
    for samples in _recordings(data_root, spec.rate_hz):
        difference = np.abs(_incremental(samples, spec) - _torchaudio(samples, spec))
        assert difference.max() <= 1e-3
        assert difference.mean() <= 1.2e-5


def test_numpy_is_nearer_to_float64_than_the_reference_is(data_root: Path) -> None:
    spec = FrontEndSpec(frame_samples=200)
    for samples in _recordings(data_root, spec.rate_hz):
        exact = _float64(samples, spec)
        ours = np.abs(log_mel(samples, spec) - exact)
        assert ours.max() <= 1e-5
        assert ours.mean() <= np.abs(_torchaudio(samples, spec) - exact).mean()
