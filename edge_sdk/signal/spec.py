"""The front-end specification: one frozen description of samples → features that training, export and device share."""

from __future__ import annotations

import json
import math
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from edge_sdk.digests import sha256
from edge_sdk.settings import Count, Settings

FrontEndKind = Literal["kaldi-fbank", "stft-db"]
PadMode = Literal["cyclic", "zero"]
CropMode = Literal["centre", "start"]
Normalisation = Literal["none", "fixed", "instance", "centred"]
WindowType = Literal["povey", "hanning", "hamming"]

_LONGEST_S = 3600.0
_MOST = 1 << 20  # a damaged file must not ask for all the memory
_MEL_HZ = 700.0  # below, the mel scale is about linear


class FrontEndSpec(Settings, frozen=True):
    """How PCM in ±1 becomes log-mel features ``[mel_bins, frames]``.

    ``kaldi-fbank``: no dither, edges snipped, natural log. ``stft-db``: frames centred on the hops of a clip padded by
    reflection, periodic Hann window, power spectrum, Slaney mel bands, 10 log10; it has no ``preemphasis`` and no
    ``remove_dc`` (set 0 and false), and ``log_floor`` is usually 1e-10 there.
    """

    title: ClassVar[str] = "front end"

    kind: FrontEndKind = "kaldi-fbank"
    rate_hz: Count = 4000  # rate of the PCM that enters
    window_s: float = 3.0  # length of the clip that the classifier gets
    frame_samples: Annotated[int, Meta(ge=2)] = 128  # analysis window
    hop_samples: Count = 40
    mel_bins: Count = 64
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
    relax: float = 0.0  # ``instance``, ``centred``: share of the clip's mean; the rest is each mel bin's mean over time
    norm_eps: float = 0.1  # ``instance``: added to the clip's standard deviation
    pad_mode: PadMode = "cyclic"
    crop: CropMode = "centre"  # of cycles longer than the window
    fade_s: float = 0.0  # raised-cosine fade at both ends of the cycle before padding
    resampler: Literal["soxr-hq"] = "soxr-hq"

    def _problem(self) -> str | None:
        if not 0 < self.window_s <= _LONGEST_S or max(self.frame_samples, self.hop_samples, self.mel_bins) > _MOST:
            return f"need 0 < window_s <= {_LONGEST_S:g}, and at most {_MOST} samples a frame, a hop and mel bins"
        if not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2:
            return f"need 0 <= low_hz < high_hz <= {self.rate_hz / 2:g} Hz (half the rate)"
        if self.window_samples < self.frame_samples:
            return "window_s is shorter than one frame"
        return None

    @property
    def full_rate_hz(self) -> float:
        """Rate of a source in Hz from which it fills all mel bands."""
        return 2 * self.high_hz

    @property
    def least_rate_hz(self) -> int:
        """Lowest rate of a source in Hz that can be used: it fills the lower half of the mel bands.

        Measured on 40 recordings of SPRSound at reduced rates with the default bundle: down to there nine of ten cycles
        keep their label, below it is a lottery.
        """
        low, high = (math.log1p(hz / _MEL_HZ) for hz in (self.low_hz, self.high_hz))
        return math.ceil(2 * _MEL_HZ * math.expm1((low + high) / 2))

    @property
    def window_samples(self) -> int:
        """Samples of one clip."""
        return round(self.window_s * self.rate_hz)

    @property
    def fft_size(self) -> int:
        """Samples of the DFT: Kaldi pads the frame to the next power of two, ``stft-db`` does not."""
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

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON: two equal digests mean equal features."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode())
