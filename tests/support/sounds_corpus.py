"""Two corpora in the layouts of SPRSound and of the noise corpus: hiss, clicks that are crackles, tones, and noise."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import soundfile

from tests.support.tiny_corpus import RATE, synthetic_breath

_EVENTS = ("Normal", "Fine Crackle", "Wheeze", "Wheeze+Crackle")
_RECORDS = ("Normal", "DAS", "CAS", "CAS & DAS")


def write_sounds_corpora(root: Path, *, children: int = 8, seconds: float = 7.0) -> Path:
    """Write ``sprsound`` and ``noise`` below ``root``; return the former. Every second child is normal."""
    corpus = root / "sprsound"
    for folder in (corpus / "train_json", corpus / "train_wav", root / "noise" / "rain"):
        folder.mkdir(parents=True)
    random = np.random.default_rng(4)
    rows = []
    for child in range(children):
        kind = (child % 2) * (1 + child // 2 % 3)
        wave = 0.002 * random.standard_normal(round(seconds * RATE))
        events = []
        for begin in range(RATE // 2, wave.size - RATE, 2 * RATE):
            wave[begin : begin + RATE] = synthetic_breath(kind, RATE, random)
            start_ms = 1000 * begin // RATE
            events.append({"start": str(start_ms), "end": str(start_ms + 1000), "type": _EVENTS[kind]})
        name = f"4000000{child}_5.0_0_p1_{child}"
        annotation = {"record_annotation": _RECORDS[kind], "event_annotation": events}
        (corpus / "train_json" / f"{name}.json").write_text(json.dumps(annotation))
        soundfile.write(corpus / "train_wav" / f"{name}.wav", np.clip(wave, -1, 1), RATE)
        rows.append((name, f"4000000{child}", "val" if child >= children - 2 else "train"))
    with (corpus / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "patient", "split"), *rows])
    clips = [("file", "kind", "source", "seconds")]
    for clip in range(4):
        name = f"rain/1-{clip}-A.wav"
        soundfile.write(root / "noise" / name, 0.1 * random.standard_normal(7 * RATE), RATE)
        clips.append((name, "rain", "ESC-10", "7.0"))
    with (root / "noise" / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(clips)
    return corpus
