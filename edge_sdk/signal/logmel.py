"""Log-mel features in numpy, incremental and for whole clips; and the same analysis as matrices for torch.

DC removal, pre-emphasis, window, zero padding and DFT are linear, so one matrix does them all:
:func:`analysis_matrices`, which the torch front end uses, and a stream that needs few frames at a time. Numpy computes
the steps one by one with an FFT in float64 elsewhere; tests keep them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.frames import frame_product, frame_view, rows_of_product
from edge_sdk.signal.spec import FrontEndSpec

Samples: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

DECIBEL = float(10.0 / np.log(10.0))  # of one unit of natural-log power
_FRAMES_AT_ONCE = 256  # bounds the memory
_LEAST_ROWS = 4  # frames in a matrix product, or the FFT is faster


def analysis_matrices(spec: FrontEndSpec) -> tuple[Doubles, Doubles]:
    """Build ``(dft, mel)`` of either kind of front end; see :func:`kaldi_matrices` and :func:`stft_matrices`."""
    return stft_matrices(spec) if spec.kind == "stft-db" else kaldi_matrices(spec)


@lru_cache(maxsize=32)
def kaldi_matrices(spec: FrontEndSpec) -> tuple[Doubles, Doubles]:
    """Build the folded analysis: ``power = re² + im²`` of ``frame @ dft``, then ``log(max(power @ mel, floor))``.

    Returns
    -------
    dft
        ``[frame_samples, 2 * bins]``, bins = fft_size // 2 + 1: real parts, then imaginary parts. ``spec.scale`` is
        folded in.
    mel
        ``[bins, mel_bins]`` triangles on Kaldi's mel scale. Both float64, read-only, cached per spec.

    Raises
    ------
    ValueError
        If ``spec.kind`` is not ``kaldi-fbank``.
    """
    if spec.kind != "kaldi-fbank":
        raise ValueError(f"front end: kaldi_matrices is for kind 'kaldi-fbank', got {spec.kind!r}")
    size = spec.frame_samples
    chain = np.eye(size)  # applied to column vectors: chain @ frame
    if spec.remove_dc:
        chain -= 1.0 / size
    if spec.preemphasis:
        emphasis = np.eye(size) - spec.preemphasis * np.eye(size, k=-1)
        emphasis[0, 0] -= spec.preemphasis  # Kaldi repeats the first sample
        chain = emphasis @ chain
    chain = _window(spec)[:, None] * chain * spec.scale
    return _frozen(_real_dft(chain, spec.fft_size)), _frozen(_mel_bank(spec))


@lru_cache(maxsize=32)
def stft_matrices(spec: FrontEndSpec) -> tuple[Doubles, Doubles]:
    """Build the ``stft-db`` analysis of one frame: periodic Hann window, DFT of the frame's length, Slaney mel bands.

    Returns
    -------
    dft
        ``[frame_samples, 2 * bins]``, bins = frame_samples // 2 + 1: real parts, then imaginary parts; ``spec.scale``
        folded in.
    mel
        ``[bins, mel_bins]`` triangles of unit area on Slaney's mel scale (the default of librosa and torchlibrosa).
        Both float64, read-only, cached per spec.

    Raises
    ------
    ValueError
        If the spec has another kind, pre-emphasis, DC removal or another window than ``hanning``.
    """
    if spec.kind != "stft-db":
        raise ValueError(f"front end: stft_matrices is for kind 'stft-db', got {spec.kind!r}")
    if spec.preemphasis or spec.remove_dc or spec.window_type != "hanning":
        raise ValueError(
            "front end: kind stft-db has a Hann window and neither pre-emphasis nor DC removal, which belong to "
            "kaldi-fbank; set window_type: hanning, preemphasis: 0 and remove_dc: false"
        )
    size = spec.frame_samples
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)
    return _frozen(_real_dft(np.diag(window * spec.scale), size)), _frozen(_slaney_bank(spec))


def on_differences(dft: Doubles) -> Doubles:
    """The matrix ``[frame_samples - 1, n]`` that takes a frame's differences ``x[n] - x[n-1]`` in the frame's place.

    Only where DC is removed: a frame is its first sample plus running sums of differences, and the first drops out. A
    rumble near full scale shrinks by 30 dB before the first rounding in float32.
    """
    return np.cumsum(dft[::-1], axis=0)[::-1][1:]


def _real_dft(chain: Doubles, fft_size: int) -> Doubles:
    """DFT of ``chain @ frame`` as ``[frame, 2 * bins]``, to be applied to row vectors."""
    angle = 2.0 * np.pi * np.outer(np.arange(fft_size // 2 + 1), np.arange(len(chain))) / fft_size
    return np.ascontiguousarray(np.concatenate((np.cos(angle) @ chain, -np.sin(angle) @ chain)).T)


def _frozen(matrix: Doubles) -> Doubles:
    matrix.setflags(write=False)
    return matrix


def _window(spec: FrontEndSpec) -> Doubles:
    phase = 2.0 * np.pi * np.arange(spec.frame_samples) / (spec.frame_samples - 1)
    if spec.window_type == "hamming":
        return np.asarray(0.54 - 0.46 * np.cos(phase))
    hann = 0.5 - 0.5 * np.cos(phase)
    return np.asarray(hann**0.85 if spec.window_type == "povey" else hann)


def _mel_bank(spec: FrontEndSpec) -> Doubles:
    bins = spec.fft_size // 2 + 1
    low, high = _hz_to_mel(np.array([spec.low_hz, spec.high_hz]))
    step = (high - low) / (spec.mel_bins + 1)
    left = low + step * np.arange(spec.mel_bins)  # left edge of each triangle
    mel = _hz_to_mel(np.arange(bins) * spec.rate_hz / spec.fft_size)[:, None]
    triangles = np.maximum(0.0, np.minimum((mel - left) / step, (left + 2 * step - mel) / step))
    triangles[-1] = 0.0  # Kaldi leaves the Nyquist bin out
    return np.asarray(triangles)


def _hz_to_mel(hz: Doubles) -> Doubles:
    return 1127.0 * np.log1p(hz / 700.0)


def _slaney_bank(spec: FrontEndSpec) -> Doubles:
    low, high = _hz_to_slaney(np.array([spec.low_hz, spec.high_hz]))
    edges = _slaney_to_hz(np.linspace(low, high, spec.mel_bins + 2))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hz = np.arange(spec.fft_size // 2 + 1)[:, None] * spec.rate_hz / spec.fft_size
    triangles = np.maximum(0.0, np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre)))
    return np.asarray(triangles * 2.0 / (right - left))


# Slaney's Auditory Toolbox: linear below 1 kHz (15 mel), then 27 steps for each factor of 6.4
_SLANEY_HZ, _SLANEY_MEL, _SLANEY_STEP = 200.0 / 3.0, 15.0, np.log(6.4) / 27.0


def _hz_to_slaney(hz: Doubles) -> Doubles:
    above = _SLANEY_MEL + np.log(np.maximum(hz, 1000.0) / 1000.0) / _SLANEY_STEP
    return np.where(hz < 1000.0, hz / _SLANEY_HZ, above)


def _slaney_to_hz(mel: Doubles) -> Doubles:
    above = 1000.0 * np.exp(_SLANEY_STEP * (np.maximum(mel, _SLANEY_MEL) - _SLANEY_MEL))
    return np.where(mel < _SLANEY_MEL, mel * _SLANEY_HZ, above)


class LogMel:
    """Incremental log-mel extractor: accepts blocks of any size and returns the frames that are complete.

    Parameters
    ----------
    spec
        Front end; its normalisation is not applied here (a stream has no whole clip), see :func:`normalise`.
    single
        Compute in float32, by the folded matrix, as the torch front end does: half the time for a few frames at once.
        Breath sounds have strong low and weak high frequencies, and rounding reaches the weak bins: 1e-6 on average and
        up to 0.01 natural-log units on real recordings. Without, float64: below 1e-5. Blocks of other sizes change the
        last bits.

    Raises
    ------
    ValueError
        For kind ``stft-db``, whose first and last frames reflect the clip's ends: it needs the whole clip.
    """

    def __init__(self, spec: FrontEndSpec, *, single: bool = False) -> None:
        if spec.kind == "stft-db":
            raise ValueError("front end: stft-db needs the whole clip; use log_mel() instead of a stream")
        self.spec = spec
        self._size, self._hop = spec.frame_samples, spec.hop_samples
        self._folded = _folded(spec) if single else None
        self._carry: Samples = np.zeros(0, dtype=np.float32)
        self._skip = 0  # samples between frames, where the hop is longer than the frame

    def accept(self, samples: Samples) -> Samples:
        """Take ``[n]`` samples, n >= 0, and return ``[k, mel_bins]`` natural-log mel energies, k >= 0."""
        frames = self._frames(samples)
        return np.zeros((0, self.spec.mel_bins), dtype=np.float32) if frames is None else self._log_energies(frames)

    def _frames(self, samples: Samples) -> Samples | None:
        """Take samples; the ``[k, frame_samples]`` frames that they complete, None where there is none."""
        skipped = min(self._skip, samples.size)
        self._skip -= skipped
        held = np.concatenate((self._carry, samples[skipped:]), dtype=np.float32)
        if held.size < self._size:
            self._carry = held
            return None
        used = (1 + (held.size - self._size) // self._hop) * self._hop
        self._carry = held[used:].copy()
        self._skip += max(0, used - held.size)
        return frame_view(held, self._size, self._hop)

    def _log_energies(self, frames: Samples) -> Samples:
        return _analyse(frames, self.spec) if self._folded is None else _analyse_folded(frames, self.spec, self._folded)

    @staticmethod
    def accept_together(extractors: Sequence[LogMel], samples: Sequence[Samples]) -> Samples:
        """As :meth:`accept`, of many streams with one front end, in one computation.

        Parameters
        ----------
        extractors, samples
            Of each stream; the samples complete the same number k of frames in all of them.

        Returns
        -------
        array
            ``[streams, k, mel_bins]``.
        """
        found = [one._frames(part) for one, part in zip(extractors, samples, strict=True)]
        frames = np.concatenate([part for part in found if part is not None])
        return extractors[0]._log_energies(frames).reshape(len(found), -1, extractors[0].spec.mel_bins)

    def reset(self) -> None:
        """Forget the remainder: the next sample starts the first frame."""
        self._carry = np.zeros(0, dtype=np.float32)
        self._skip = 0


class _Folded(NamedTuple):
    """Matrices of the analysis in float32, without the bins that no mel band reads."""

    dft: Samples  # [frame_samples, 2 * bins], or one row less: on differences, where DC is removed
    mel: Samples  # [2 * bins, mel_bins]: the bank twice, so that it adds the squares of real and imaginary parts


@lru_cache(maxsize=32)
def _folded(spec: FrontEndSpec) -> _Folded | None:
    """None: the frames are so long that the FFT is faster."""
    dft, mel = kaldi_matrices(spec)
    read = _read_bins(mel)
    parts = np.concatenate((dft[:, read], dft[:, len(mel) :][:, read]), axis=1)
    folded = np.ascontiguousarray(on_differences(parts) if spec.remove_dc else parts, dtype=np.float32)
    if rows_of_product(folded) < _LEAST_ROWS:
        return None
    return _Folded(folded, np.concatenate((mel[read], mel[read])).astype(np.float32))


def _read_bins(mel: Doubles) -> slice:
    """From the first to the last bin that a band reads; one bin where all bands lie between two."""
    read = np.flatnonzero(mel.any(axis=1)).tolist() or [0]
    return slice(read[0], read[-1] + 1)


def _analyse_folded(frames: Samples, spec: FrontEndSpec, folded: _Folded) -> Samples:
    """As :func:`_analyse`, in float32."""
    power = frame_product(frames[:, 1:] - frames[:, :-1] if spec.remove_dc else frames, folded.dft)
    np.square(power, out=power)
    energies = frame_product(power, folded.mel)
    np.maximum(energies, np.float32(spec.log_floor), out=energies)
    return np.log(energies, out=energies)


def _analyse(frames: Samples, spec: FrontEndSpec) -> Samples:
    """``[k, frame_samples]`` frames → ``[k, mel_bins]`` log energies."""
    steps = _steps(spec)
    logs = np.empty((len(frames), spec.mel_bins), dtype=np.float32)
    for begin in range(0, len(frames), _FRAMES_AT_ONCE):
        shaped = _shaped(frames[begin : begin + _FRAMES_AT_ONCE], steps, spec)
        spectrum = np.fft.rfft(shaped, spec.fft_size)[:, steps.read].view(np.float64)  # [k, 2 * bins]
        # Squares lose nothing in float32: no difference of large numbers follows.
        power = np.square(spectrum, out=np.empty(spectrum.shape, dtype=np.float32), casting="same_kind")
        logs[begin : begin + _FRAMES_AT_ONCE] = frame_product(power[:, ::2] + power[:, 1::2], steps.mel)
    np.maximum(logs, np.float32(spec.log_floor), out=logs)
    np.log(logs, out=logs)
    return logs * np.float32(DECIBEL) if spec.kind == "stft-db" else logs


class _Steps(NamedTuple):
    """Constants of the analysis step by step."""

    window: Doubles  # scale folded in
    faded: Doubles  # window times pre-emphasis
    read: slice  # bins that a mel band reads
    mel: Samples  # [bins, mel_bins]


@lru_cache(maxsize=32)
def _steps(spec: FrontEndSpec) -> _Steps:
    if spec.kind == "stft-db":
        phase = 2.0 * np.pi * np.arange(spec.frame_samples) / spec.frame_samples
        window, mel = 0.5 - 0.5 * np.cos(phase), _slaney_bank(spec)
    else:
        window, mel = _window(spec), _mel_bank(spec)
    read, window = _read_bins(mel), window * spec.scale
    return _Steps(window, window * spec.preemphasis, read, mel[read].astype(np.float32))


def _shaped(frames: Samples, steps: _Steps, spec: FrontEndSpec) -> Doubles:
    """Apply the steps of :func:`analysis_matrices` before the DFT to ``[k, N]`` frames."""
    centred = frames.astype(np.float64)
    if spec.remove_dc:
        centred -= np.add.reduce(centred, axis=1, keepdims=True) * (1.0 / spec.frame_samples)
    shaped = centred * steps.window
    if spec.preemphasis:
        shaped[:, 1:] -= centred[:, :-1] * steps.faded[1:]
        shaped[:, 0] -= centred[:, 0] * steps.faded[0]  # Kaldi repeats the first sample
    return shaped


def log_mel(samples: Samples, spec: FrontEndSpec) -> Samples:
    """Log-mel ``[mel_bins, frames_of(n)]`` of a whole clip, ``[n]`` samples at ``spec.rate_hz``; not normalised."""
    if spec.kind == "stft-db":
        if spec.frames_of(samples.size) == 0:
            return np.zeros((spec.mel_bins, 0), dtype=np.float32)
        padded = np.pad(samples, spec.fft_size // 2, mode="reflect")
        frames = frame_view(np.ascontiguousarray(padded, dtype=np.float32), spec.frame_samples, spec.hop_samples)
        return np.ascontiguousarray(_analyse(frames, spec).T)
    return np.ascontiguousarray(LogMel(spec).accept(samples).T)


def normalise(logmel: Samples, spec: FrontEndSpec) -> Samples:
    """Normalise log-mel features ``[mel_bins, T]`` by the spec.

    ``fixed``: ``(x - mean) / std``. ``instance``: minus ``relax`` x the mean of the whole clip plus ``1 - relax`` x
    the mean of each mel bin over time, then divided by the clip's (population) standard deviation plus ``norm_eps``.
    ``centred``: the same, divided by the fixed ``std`` instead, so that a flat clip stays flat.
    """
    if spec.normalisation == "none" or logmel.size == 0:
        return logmel
    if spec.normalisation == "fixed":
        return ((logmel - np.float32(spec.mean)) / np.float32(spec.std)).astype(np.float32)
    centre = spec.relax * logmel.mean() + (1.0 - spec.relax) * logmel.mean(axis=1, keepdims=True)
    centred = logmel - centre
    if spec.normalisation == "centred":
        return np.asarray(centred / spec.std, dtype=np.float32)
    return np.asarray(centred / (centred.std() + spec.norm_eps), dtype=np.float32)


def features(samples: Samples, spec: FrontEndSpec) -> Samples:
    """Normalised log-mel ``[mel_bins, frames]`` of one window of samples (see ``fit_window``)."""
    return normalise(log_mel(samples, spec), spec)
