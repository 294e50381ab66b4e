"""The front-end specification: one frozen description of samples → features that training, export and device share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

FrontEndKind = Literal["kaldi-fbank", "stft-db"]
PadMode = Literal["cyclic", "zero"]
CropMode = Literal["centre", "start"]
Normalisation = Literal["none", "fixed", "instance", "centred"]
WindowType = Literal["povey", "hanning", "hamming"]


@dataclass(frozen=True, slots=True)
class FrontEndSpec:
    """How PCM in ±1 becomes a ``[mel_bins, frames]`` log-mel picture.

    ``kaldi-fbank``: no dither, edges snipped, natural log. ``stft-db``: frames centred on the hops of a clip padded by
    reflection, periodic Hann window, power spectrum, Slaney mel bands, 10 log10; it knows no ``preemphasis`` and no
    ``remove_dc`` (set 0 and false), and ``log_floor`` is usually 1e-10 there.
    """

    kind: FrontEndKind = "kaldi-fbank"
    rate_hz: int = 4000  # rate of the PCM that enters
    window_s: float = 3.0  # length of the clip the classifier sees
    frame_samples: int = 128  # analysis window
    hop_samples: int = 40
    mel_bins: int = 64
    low_hz: float = 40.0
    high_hz: float = 2000.0
    window_type: WindowType = "hanning"
    preemphasis: float = 0.97  # per frame, Kaldi style; 0 switches it off
    remove_dc: bool = True  # per-frame mean removal
    scale: float = 1.0  # the PCM is multiplied by this first (32768 gives Kaldi's 16-bit habit)
    log_floor: float = 1.1920928955078125e-07  # energies are clipped here before the log (Kaldi: float32 epsilon)
    normalisation: Normalisation = "fixed"
    mean: float = 0.0  # ``fixed``: (x - mean) / std, natural-log units
    std: float = 1.0  # also the divisor of ``centred``
    relax: float = (
        0.0  # ``instance`` and ``centred``: share of the whole-clip mean kept, 0 = each mel bin's own mean over time
    )
    norm_eps: float = 0.1  # ``instance``: added to the clip's standard deviation
    pad_mode: PadMode = "cyclic"
    crop: CropMode = "centre"  # of cycles longer than the window
    fade_s: float = 0.0  # raised-cosine fade at both ends of the cycle before padding
    resampler: Literal["soxr-hq"] = "soxr-hq"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            choices = get_args(hint)
            if choices and getattr(self, name) not in choices:
                raise ValueError(f"front end: {name} is {getattr(self, name)!r}, must be one of {choices}")
        if self.hop_samples < 1 or self.frame_samples < 2 or self.mel_bins < 1 or self.rate_hz < 1:
            raise ValueError("front end: hop_samples, frame_samples, mel_bins and rate_hz must be positive")
        if not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ValueError(f"front end: need 0 <= low_hz < high_hz <= {self.rate_hz / 2:g} Hz (half the rate)")
        if self.window_samples < self.frame_samples:
            raise ValueError("front end: window_s is shorter than one frame")

    @property
    def window_samples(self) -> int:
        """Samples of one clip."""
        return round(self.window_s * self.rate_hz)

    @property
    def fft_size(self) -> int:
        """Kaldi pads the frame to the next power of two; ``stft-db`` does not."""
        if self.kind == "stft-db":
            return self.frame_samples
        return 1 << (self.frame_samples - 1).bit_length()

    @property
    def frames(self) -> int:
        """Frames of one clip (Kaldi ``snip_edges``; centred frames for ``stft-db``)."""
        return self.frames_of(self.window_samples)

    def frames_of(self, samples: int) -> int:
        """Frames that ``samples`` samples give; 0 below one frame (``stft-db``: where they are too few to reflect)."""
        if self.kind == "stft-db":
            return 1 + samples // self.hop_samples if samples > self.fft_size // 2 else 0
        if samples < self.frame_samples:
            return 0
        return 1 + (samples - self.frame_samples) // self.hop_samples

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrontEndSpec:
        """Build from a mapping; unknown keys raise ``ValueError`` naming them."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"front end: unknown keys {unknown}; this SDK may be older than the file")
        return cls(**values)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON: two equal digests mean equal features."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
