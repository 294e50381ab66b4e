"""The front end in torch: torchaudio's Kaldi fbank as reference, and the same analysis folded into a convolution.

``FoldedFrontEnd`` is what training runs and what the exported ONNX graph holds: features cannot drift between them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.signal.logmel import DECIBEL, analysis_matrices
from edge_sdk.signal.spec import FrontEndSpec


def normalise(logmel: Tensor, spec: FrontEndSpec) -> Tensor:
    """Apply the normalisation that ``spec`` names; every statistic comes from the clip itself.

    Parameters
    ----------
    logmel : Tensor
        Log mel energies, ``[B, M, T]``: natural log, or dB for ``stft-db``.
    spec : FrontEndSpec
        ``none``; ``fixed``: ``(x - mean) / std``; ``instance``: minus a mix of the clip's mean and each mel bin's mean
        over time (this removes a device's fixed frequency response), divided by what standard deviation is left.

    Returns
    -------
    Tensor
        ``[B, M, T]``.
    """
    if spec.normalisation == "none":
        return logmel
    if spec.normalisation == "fixed":
        return (logmel - spec.mean) / spec.std
    per_bin = logmel.mean(dim=2, keepdim=True)  # [B, M, 1]
    centre = per_bin
    if spec.relax:
        centre = spec.relax * per_bin.mean(dim=1, keepdim=True) + (1.0 - spec.relax) * per_bin
    centred = logmel - centre
    if spec.normalisation == "centred":
        return centred / spec.std
    # spelled out instead of Tensor.std: population statistics, three plain ONNX operators
    mean = centred.mean(dim=(1, 2), keepdim=True)
    std = torch.sqrt(((centred - mean) ** 2).mean(dim=(1, 2), keepdim=True))
    return centred / (std + spec.norm_eps)


class KaldiFbank(nn.Module):
    """Reference implementation: ``torchaudio.compliance.kaldi.fbank``, clip by clip. Slow; for parity tests."""

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec

    def log_mel(self, pcm: Tensor) -> Tensor:
        """``[B, N]`` PCM in ±1 → ``[B, M, T]`` natural-log mel energies."""
        return torch.stack([self._clip(clip) for clip in pcm])

    def forward(self, pcm: Tensor) -> Tensor:
        """``[B, N]`` PCM in ±1 → ``[B, 1, M, T]`` features."""
        return normalise(self.log_mel(pcm), self.spec).unsqueeze(1)

    def _clip(self, clip: Tensor) -> Tensor:
        from torchaudio.compliance.kaldi import fbank

        spec = self.spec
        milliseconds = 1000.0 / spec.rate_hz
        mel = fbank(
            clip.unsqueeze(0) * spec.scale,
            sample_frequency=float(spec.rate_hz),
            frame_length=spec.frame_samples * milliseconds,
            frame_shift=spec.hop_samples * milliseconds,
            num_mel_bins=spec.mel_bins,
            low_freq=spec.low_hz,
            high_freq=spec.high_hz,
            window_type=spec.window_type,
            preemphasis_coefficient=spec.preemphasis,
            remove_dc_offset=spec.remove_dc,
            dither=0.0,
            energy_floor=0.0,
            snip_edges=True,
            round_to_power_of_two=True,
            use_energy=False,
        )  # [T, M]
        # torchaudio floors at float32 epsilon and cannot be told otherwise; a higher floor is applied on top
        return mel.clamp(min=float(torch.tensor(spec.log_floor).log())).T


class FoldedFrontEnd(nn.Module):
    """The whole analysis as one ``Conv1d``, a square and a mel matrix: ``[B, N]`` PCM → ``[B, 1, M, T]``.

    DC removal, pre-emphasis, window, zero padding and DFT are linear in the frame, so they fold into one matrix that is
    built in float64 and stored in float32. ``stft-db`` first reflects the clip at both ends by half a frame.

    Where DC is removed, a frame's mean does not count and the frame is as good as its differences. The convolution then
    runs on ``x[n] - x[n-1]``: a rumble near full scale shrinks by 30 dB before anything is rounded, and the faint high
    bins beside it come out ten times nearer to the exact result than torchaudio's own float32 does.
    """

    analysis: Tensor  # [2 * bins, 1, frame_samples, or one less on differences]: real rows, then imaginary rows
    mel: Tensor  # [mel_bins, bins, 1]

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec
        analysis, mel = analysis_matrices(spec)  # [frame, 2 * bins], [bins, mel_bins]
        if spec.remove_dc:  # frame = first sample + running sum of differences, and the first sample drops out
            analysis = np.cumsum(analysis[::-1], axis=0)[::-1][1:]
        self.register_buffer("analysis", torch.from_numpy(analysis.T.copy()).float().unsqueeze(1), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel.T.copy()).float().unsqueeze(2), persistent=False)

    def log_mel(self, pcm: Tensor) -> Tensor:
        """``[B, N]`` PCM in ±1 → ``[B, M, T]`` log mel energies: natural log, or dB for ``stft-db``."""
        spec = self.spec
        decibels = spec.kind == "stft-db"
        if spec.remove_dc:
            pcm = pcm[:, 1:] - pcm[:, :-1]
        wave = pcm.unsqueeze(1)  # [B, 1, N]
        if decibels:
            wave = F.pad(wave, (spec.fft_size // 2, spec.fft_size // 2), mode="reflect")
        parts = F.conv1d(wave, self.analysis, stride=spec.hop_samples) ** 2  # [B, 2 * bins, T]
        real, imaginary = parts.chunk(2, dim=1)
        energy = F.conv1d(real + imaginary, self.mel)  # [B, M, T]
        logarithm = torch.log(torch.clamp(energy, min=spec.log_floor))
        return DECIBEL * logarithm if decibels else logarithm

    def forward(self, pcm: Tensor) -> Tensor:
        """``[B, N]`` PCM in ±1 → ``[B, 1, M, T]`` features."""
        return normalise(self.log_mel(pcm), self.spec).unsqueeze(1)
