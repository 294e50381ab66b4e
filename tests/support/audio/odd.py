"""Recordings as the field delivers them: every container and sample format, damaged in every way, by a seed."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

Floats = npt.NDArray[np.float32]

SECONDS = 4.0
RATES = (4000, 8000, 11025, 16000, 22050, 44100, 48000)
MPEG_RATES = (8000, 11025, 16000, 22050, 44100, 48000)

SUBTYPES: dict[str, tuple[str, ...]] = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"),
    "WAVEX": ("PCM_16", "PCM_24", "FLOAT"),
    "RF64": ("PCM_16", "PCM_24", "FLOAT"),
    "W64": ("PCM_16", "PCM_24", "FLOAT"),
    "AIFF": ("PCM_S8", "PCM_16", "PCM_24", "FLOAT", "ULAW"),
    "AU": ("PCM_16", "PCM_24", "FLOAT", "ALAW"),
    "CAF": ("PCM_16", "PCM_24", "FLOAT", "ULAW"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
}


def breathing(rate: int, seconds: float = SECONDS, channels: int = 1, seed: int = 0) -> Floats:
    """Noise of a breath's spectrum and rhythm ``[n, channels]``, peak 0.3: smooth, never silent."""
    rng = np.random.default_rng(seed)
    count = round(rate * seconds)
    noise = rng.normal(0, 1, count + 64)
    kernel = np.hanning(max(5, rate // 400))
    smooth = np.convolve(noise, kernel / kernel.sum(), "same")[:count]
    level = 0.15 + np.square(np.sin(np.pi * np.arange(count) / rate / 1.5))
    sound = smooth * level
    sound *= 0.3 / np.max(np.abs(sound))
    return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


def encoded(container: str, subtype: str, rate: int, channels: int = 1, samples: Floats | None = None) -> bytes:
    """A sound recording as a file of this format."""
    file = io.BytesIO()
    audio = breathing(rate, channels=channels) if samples is None else samples
    soundfile.write(file, audio, rate, format=container, subtype=subtype)
    return file.getvalue()


def wav(
    samples: bytes,
    rate: int,
    *,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    data: int | None = None,
    riff: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    order: str = "<",
    header_rate: int | None = None,
) -> bytes:
    """A WAV with any sizes in its header."""
    frame = channels * bits // 8
    stated = rate if header_rate is None else header_rate
    form = struct.pack(f"{order}HHIIHH", tag, channels, stated, stated * frame & 0xFFFFFFFF, frame, bits)
    size = struct.pack(f"{order}I", len(samples) if data is None else data)
    body = b"WAVEfmt " + struct.pack(f"{order}I", 16) + form + before + b"data" + size + samples + after
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", len(body) if riff is None else riff) + body


def pcm16(samples: Floats) -> bytes:
    """16-bit little-endian."""
    return np.rint(samples * 32767).astype("<i2").tobytes()


def chunk(name: bytes, content: bytes) -> bytes:
    """A RIFF chunk with its padding."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@dataclass(frozen=True)
class Odd:
    """A file, and what must be true of what is read from it."""

    name: str
    content: bytes
    whole_s: float  # audio that the intact file holds
    intact: bool  # then nothing may be missing


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: max(1, int(len(content) * share))]


def _holed(content: bytes) -> bytes:
    begin = len(content) * 6 // 10
    return content[:begin] + bytes(97) + content[begin + 97 :]


def _removed(content: bytes) -> bytes:
    begin = len(content) // 2
    return content[:begin] + content[begin + 1001 :]


DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "intact": None,
    "cut-to-90%": _cut(0.9),
    "cut-to-40%": _cut(0.4),
    "cut-to-3%": _cut(0.03),
    "hole": _holed,
    "removed": _removed,
    "tail": lambda content: content + b"TAG" + bytes(125),
    "flip-header": lambda content: content[:20] + bytes([content[20] ^ 0x41]) + content[21:],
}


def odd_files(count: int, seed: int = 0) -> Iterator[Odd]:
    """Files in a random order: container × sample format × channels × rate × damage."""
    rng = np.random.default_rng(seed)
    kinds = [(container, subtype) for container, subtypes in SUBTYPES.items() for subtype in subtypes]
    damages = list(DAMAGES)
    for number in range(count):
        container, subtype = kinds[number % len(kinds)]
        damage = damages[int(rng.integers(len(damages)))]
        rates = (8000, 16000, 48000) if subtype == "OPUS" else MPEG_RATES if container == "MP3" else RATES
        rate, channels = int(rng.choice(rates)), int(rng.integers(1, 3))
        content = encoded(container, subtype, rate, channels)
        change = DAMAGES[damage]
        name = f"{number:04d}-{container}-{subtype}-{channels}ch-{rate}-{damage}"
        yield Odd(name, content if change is None else change(content), SECONDS, damage in ("intact", "tail"))
