"""The contests of ``bench peers``: who does the same work, and on which audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.audio import data_folder, phantom_samples
from edge_sdk.runtime.bundle.load import Bundle, resolve_bundle
from edge_sdk.signal.padding import fit_window

BLOCK_S = 0.08
"""Block length of the front-end comparison."""

CONTESTS = ("front-end", "inference", "stream", "windows", "events")
"""Kinds, in their order."""

TORCH = ("torch-eager", "torch-compile")
WINDOW_RATES = {"ours": 8000, "yamnet": 16000, "birdnet": 48000}
"""Hz of the audio that each contestant of ``windows`` gets: its own, so that no peer has to resample."""

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Contest:
    """The same work for us and for peers."""

    kind: str
    title: str
    peers: tuple[str, ...]
    settings: dict[str, Any]
    audio_s: float | None = None  # in one unit of work
    names: dict[str, str] = field(default_factory=dict)  # peer → name of its environment, where it is another


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes contests and writes the audio that they need."""

    bundle: Bundle
    name: str  # of the bundle, for another process
    seconds: float  # of audio
    folder: Path  # for the audio

    def contests(self, kinds: Sequence[str]) -> Iterator[Contest]:
        """Those of the kinds, each made when it is asked for."""
        makers = {
            "front-end": self._front_end,
            "inference": self._inference,
            "stream": self._streams,
            "windows": self._windows,
            "events": self._events,
        }
        for kind in CONTESTS:
            if kind in kinds:
                yield from makers[kind]()

    def _common(self) -> dict[str, Any]:
        return {"paths": [str(_ROOT)], "bundle": self.name, "spec": self.bundle.front_end.to_dict()}

    def _audio(self, rate_hz: int) -> str:
        """File with one simulated patient."""
        path = self.folder / f"audio{rate_hz}.npy"
        if not path.exists():
            np.save(path, phantom_samples("pneumonia", rate_hz, self.seconds))
        return str(path)

    def _front_end(self) -> Iterator[Contest]:
        spec, path = self.bundle.front_end, self.folder / "scaled.npy"
        samples = np.load(self._audio(spec.rate_hz)) * np.float32(spec.scale)
        np.save(path, samples)
        block = round(BLOCK_S * spec.rate_hz)
        scaled = {**spec.to_dict(), "scale": 1.0}  # peers take the samples as they are
        yield Contest(
            "front-end",
            f"front end, {1000 * BLOCK_S:g}-ms blocks at {spec.rate_hz} Hz",
            ("kaldi-native-fbank", "torchaudio", "librosa"),
            {**self._common(), "spec": scaled, "audio": str(path), "block": block},
            samples.size // block * block / spec.rate_hz,
        )

    def _inference(self) -> Iterator[Contest]:
        bundle, spec, path = self.bundle, self.bundle.front_end, self.folder / "windows.npy"
        samples = np.load(self._audio(spec.rate_hz))
        np.save(path, np.stack([fit_window(c, spec) for c in np.array_split(samples, int(self.seconds // 4))]))
        settings = {
            **self._common(),
            "windows": str(path),
            "artefact": bundle.artefact.format,
            "onnx": str((resolve_bundle(self.name) / bundle.artefact.file).resolve()),
            "model": (bundle.manifest.training.get("recipe") or {}).get("model"),
            "classes": len(bundle.labels),
        }
        yield Contest(
            "inference",
            "inference of one breath after the other",
            ("onnxruntime-default", *TORCH),
            settings,
            names=dict.fromkeys(TORCH, "torchaudio"),
        )

    def _streams(self) -> Iterator[Contest]:
        for rate in (8000, 16000):
            settings = {**self._common(), "audio": self._audio(rate), "rate_hz": rate}
            yield Contest("stream", f"streaming loop at {rate} Hz", ("silero-vad",), settings, self.seconds)

    def _windows(self) -> Iterator[Contest]:
        settings = {
            **self._common(),
            "rates_hz": WINDOW_RATES,
            "audio": {name: self._audio(rate) for name, rate in WINDOW_RATES.items()},
            "yamnet": str(data_folder() / "pretrained" / "yamnet.tflite"),
        }
        yield Contest(
            "windows",
            "a recording from samples to labelled events, each at its own sample rate: ours finds cycles and labels "
            "them, the peers label window after window",
            ("birdnet", "yamnet"),
            settings,
            self.seconds,
            names={"yamnet": "birdnet"},
        )

    def _events(self) -> Iterator[Contest]:
        yield Contest("events", "event scores", ("sed_eval",), {**self._common(), "events": _made_up_events(20)})


def _made_up_events(count: int) -> list[dict[str, Any]]:
    """True cycles, and those that an imperfect detector could find."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(count):
        begins = np.cumsum(rng.uniform(2.0, 4.0, 8))
        truth = np.stack((begins, begins + rng.uniform(1.0, 2.0, 8)), axis=1)
        found = truth[rng.random(8) < 0.85] + rng.normal(0.0, 0.15, 2)
        rows.append({"truth": truth.tolist(), "found": found.tolist()})
    return rows
