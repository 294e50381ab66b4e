"""Keeps what was heard: the sound as it came, and its events beside it."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge_sdk.errors import AudioError
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.summary import Labels

_SILENCE_BLOCK = 65_536


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RecorderSink:
    """Writes ``NAME.wav`` and ``NAME.jsonl`` into a folder.

    The wav is 32-bit float at the source's rate, so that replaying it gives the very same events; samples the source
    lost are zeros in it, so that times in the events and in the wav agree. Both files carry ``.part`` until the source
    ends well, and the summary is the last line of the events.

    Parameters
    ----------
    folder
        Made if it is not there.
    labels
        Of the bundle.

    Raises
    ------
    AudioError
        If the folder or the files cannot be written.
    """

    def __init__(self, folder: Path, labels: Labels) -> None:
        self._folder = folder
        self._jsonl = JsonlSink(self._write, labels)
        self._wav: Any = None
        self._events: IO[str] | None = None
        self._parts: list[Path] = []

    def open(self, source: str, sample_rate: int) -> None:
        import soundfile

        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem if Path(source).suffix else source).strip("-.")
        name = f"{stem or 'source'}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000:06d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._parts = [self._folder / f"{name}.wav.part", self._folder / f"{name}.jsonl.part"]
            self._events = self._parts[1].open("w", encoding="utf-8")
            self._wav = soundfile.SoundFile(
                str(self._parts[0]), "w", samplerate=sample_rate, channels=1, subtype="FLOAT", format="WAV"
            )
        except (OSError, soundfile.LibsndfileError) as error:
            raise AudioError(f"cannot record into {self._folder}: {error}; name a folder that can be written") from None
        self._jsonl.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        left = block.lost_before
        while left > 0:
            n = min(left, _SILENCE_BLOCK)
            self._wav.write(np.zeros(n, np.float32))
            left -= n
        self._wav.write(block.samples)
        self._jsonl.audio(block)

    def event(self, event: Event, latency_ms: float | None) -> None:
        self._jsonl.event(event, latency_ms)

    def close(self, stats: StreamStats) -> None:
        self._jsonl.close(stats)
        self._wav.close()
        if self._events is not None:
            self._events.close()
        for part in self._parts:
            part.replace(part.with_suffix(""))

    def _write(self, record: dict[str, Any]) -> None:
        if self._events is not None:
            self._events.write(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n")
