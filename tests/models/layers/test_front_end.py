"""Training, export and device compute the same features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from edge_sdk.models.layers.front_end import FoldedFrontEnd, normalise_log_mel
from edge_sdk.signal import logmel
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.recipe import load_recipe
from tests.support.kaldi_reference import kaldi_log_mel

SHIPPED = load_recipe("compact").spec


def _real_clips(spec: FrontEndSpec, data_root: Path, corpus: str) -> torch.Tensor:
    """``[B, N]`` starts of recordings, windowed for ``spec``."""
    import soundfile

    clips = []
    for path in sorted((data_root / corpus).rglob("*.flac"))[:6]:
        samples, rate = soundfile.read(path, dtype="float32", frames=60_000)
        clips.append(fit_window(resample(samples, rate, spec.rate_hz), spec))
    return torch.from_numpy(np.stack(clips))


SPECS = pytest.mark.parametrize(
    "spec",
    [SHIPPED, FrontEndSpec(), replace(SHIPPED, frame_samples=100, hop_samples=40, mel_bins=32, window_type="povey")],
    ids=["shipped", "default", "padded-fft"],
)


@SPECS
@pytest.mark.parametrize("corpus", ["sprsound", "hls_cmds"])
def test_folded_front_end_equals_torchaudio_on_real_recordings(
    spec: FrontEndSpec, data_root: Path, corpus: str
) -> None:
    pcm = _real_clips(spec, data_root, corpus)
    difference = (FoldedFrontEnd(spec).log_mel(pcm) - kaldi_log_mel(pcm, spec)).abs()
    assert difference.shape == (len(pcm), spec.mel_bins, spec.frames)
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-5


@SPECS
def test_folded_front_end_is_nearer_to_the_exact_result_than_the_reference_is(
    spec: FrontEndSpec, data_root: Path
) -> None:
    """KAUH: rumble near full scale beside faint high bins, where torchaudio's float32 is 0.4 % off."""
    pcm = _real_clips(spec, data_root, "kauh")
    exact = kaldi_log_mel(pcm.double(), spec)
    folded = (FoldedFrontEnd(spec).log_mel(pcm) - exact).abs()
    reference = (kaldi_log_mel(pcm, spec) - exact).abs()
    assert folded.max() <= 1e-3
    assert folded.mean() <= 1e-5
    assert folded.mean() < reference.mean()


@pytest.mark.parametrize("kind", ["none", "fixed", "instance", "centred"])
def test_torch_and_numpy_normalise_alike(kind: str) -> None:
    spec = replace(SHIPPED, normalisation=kind, mean=3.0, std=2.0, relax=0.25)  # type: ignore[arg-type]
    picture = np.random.default_rng(0).normal(5.0, 2.0, (4, 48, 60)).astype(np.float32)
    ours = normalise_log_mel(torch.from_numpy(picture), spec).numpy()
    theirs = np.stack([logmel.normalise(clip, spec) for clip in picture])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_fixed_frequency_response_of_a_device_vanishes_without_relaxation() -> None:
    spec = replace(SHIPPED, relax=0.0)
    picture = torch.randn(2, spec.mel_bins, 80)
    device = torch.linspace(-6.0, 6.0, spec.mel_bins)[None, :, None]
    torch.testing.assert_close(
        normalise_log_mel(picture + device, spec), normalise_log_mel(picture, spec), atol=1e-5, rtol=0
    )


def test_level_of_a_recording_does_not_reach_the_model() -> None:
    pcm = torch.randn(2, SHIPPED.window_samples) * 0.05
    front_end = FoldedFrontEnd(SHIPPED)
    torch.testing.assert_close(front_end(pcm), front_end(pcm * 0.1), atol=1e-3, rtol=0)


def test_settings_that_an_stft_front_end_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="kaldi-fbank"):
        FoldedFrontEnd(FrontEndSpec(kind="stft-db"))
