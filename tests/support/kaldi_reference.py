"""Reference front end of the parity tests: torchaudio's Kaldi fbank, clip by clip."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from edge_sdk.signal.spec import FrontEndSpec


def kaldi_log_mel(pcm: Tensor, spec: FrontEndSpec) -> Tensor:
    """``[B, N]`` PCM in ±1 → ``[B, M, T]`` natural-log mel energies, in the precision of ``pcm``."""
    return torch.stack([_clip(clip, spec) for clip in pcm])


def _clip(clip: Tensor, spec: FrontEndSpec) -> Tensor:
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
    # torchaudio's floor is float32 epsilon and has no option; a higher floor is applied on top
    floor: Tensor = mel.clamp(min=float(torch.tensor(spec.log_floor).log())).T
    return floor
