"""Small corpora in the publishers' layouts, written by the tests themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

MakeAudio = Callable[..., Path]
MakeRecording = Callable[..., str]


@pytest.fixture
def make_audio() -> MakeAudio:
    """Write a mono file of noise that no other call repeats."""
    count = 0

    def make(path: Path, seconds: float = 4.0, rate: int = 8000, seed: int | None = None) -> Path:
        nonlocal count
        count += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(1000 + count if seed is None else seed).normal(0, 0.05, round(seconds * rate))
        soundfile.write(path, np.rint(noise * 32768).clip(-32768, 32767).astype(np.int16), rate, subtype="PCM_16")
        return path

    return make


@pytest.fixture
def sprsound_root(tmp_path: Path) -> Path:
    """An empty folder to be filled by ``add_sprsound``."""
    root = tmp_path / "sprsound"
    root.mkdir()
    return root


@pytest.fixture
def add_sprsound(sprsound_root: Path, make_audio: MakeAudio) -> MakeRecording:
    """Add one recording with its annotation; returns its name."""

    def add(
        stem: str,
        split: str = "train",
        events: Sequence[tuple[Any, Any, str]] = ((0, 1500, "Normal"), ("1600", "3000", "Fine Crackle")),
        label: str = "DAS",
        *,
        audio: bool = True,
        suffix: str = ".wav",
        **kinds: Any,
    ) -> str:
        side = "train" if split == "train" else "test"
        folder = sprsound_root / ("train_json" if side == "train" else f"test_json/{split}_json")
        folder.mkdir(parents=True, exist_ok=True)
        annotation = {
            "record_annotation": label,
            "event_annotation": [{"start": s, "end": e, "type": t} for s, e, t in events],
        }
        (folder / f"{stem}.json").write_text(json.dumps(annotation))
        if audio:
            make_audio(sprsound_root / f"{side}_wav" / f"{stem}{suffix}", **kinds)
        return stem

    return add
