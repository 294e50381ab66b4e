"""The front end in torch: the whole analysis folded into one convolution.

Training runs ``FoldedFrontEnd`` and the exported ONNX graph contains it, so features cannot drift between them. The
reference is ``torchaudio.compliance.kaldi.fbank``; tests compare with it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.signal.logmel import DECIBEL, analysis_matrices, on_differences
from edge_sdk.signal.spec import FrontEndSpec


def normalise_log_mel(logmel: Tensor, spec: FrontEndSpec) -> Tensor:
    """Apply the normalisation that ``spec`` names; every statistic is of the clip itself.

    The same function as :func:`edge_sdk.signal.logmel.normalise`, on a batch of tensors.

    Parameters
    ----------
    logmel : Tensor
        Log mel energies, ``[B, M, T]``: natural log, or dB for ``stft-db``.
    spec : FrontEndSpec
        ``none``; ``fixed``: ``(x - mean) / std``; ``instance``: minus a mix of the clip's mean and each mel bin's mean
        over time (this removes a device's fixed frequency response), divided by the standard deviation of the rest;
        ``centred``: as ``instance``, but divided by the spec's ``std``.

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


class FoldedFrontEnd(nn.Module):
    """The whole analysis as one ``Conv1d``, a square and a mel matrix: ``[B, N]`` PCM → ``[B, 1, M, T]``.

    DC removal, pre-emphasis, window, zero padding and DFT are linear in the frame, so they fold into one matrix that is
    built in float64 and stored in float32. ``stft-db`` first reflects the clip at both ends by half a frame.

    Where DC is removed, a frame's mean has no effect, so the convolution runs on the differences ``x[n] - x[n-1]``: a
    rumble near full scale shrinks by 30 dB before the first rounding, and the faint high bins beside it are ten times
    nearer to the exact result than torchaudio's float32.
    """

    analysis: Tensor  # [2 * bins, 1, frame_samples, or one less on differences]: real rows, then imaginary rows
    mel: Tensor  # [mel_bins, bins, 1]; bins: those of the FFT that any mel bin reads

    def __init__(self, spec: FrontEndSpec) -> None:
        super().__init__()
        self.spec = spec
        analysis, mel = analysis_matrices(spec)  # [frame, 2 * bins], [bins, mel_bins]
        read = mel.any(axis=1)
        analysis, mel = analysis[:, np.tile(read, 2)], mel[read]
        if spec.remove_dc:
            analysis = on_differences(analysis)
        self.register_buffer("analysis", torch.from_numpy(analysis.T.copy()).float().unsqueeze(1), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel.T.copy()).float().unsqueeze(2), persistent=False)

    def log_mel(self, pcm: Tensor) -> Tensor:
        """``[B, N]`` PCM in ±1 → ``[B, M, T]`` log mel energies: natural log, or dB for ``stft-db``."""
        spec = self.spec
        decibels = spec.kind == "stft-db"
        if spec.remove_dc:
            pcm = pcm[:, 1:] - pcm[:, :-1]  # [B, N - 1]
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
        return normalise_log_mel(self.log_mel(pcm), self.spec).unsqueeze(1)
