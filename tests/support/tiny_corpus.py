"""A corpus of a few seconds: hiss for normal breaths, clicks for crackles, tones for wheezes."""

from __future__ import annotations

import numpy as np
import torch

from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.sampling import ANNOTATED, EventTable

RATE = 4000
RECORDINGS = 12
SECONDS = 4
EVENTS_PER_RECORDING = 3


def synthetic_breath(label: int, samples: int, random: np.random.Generator) -> np.ndarray:
    """One breath of class ``label`` (bit 0 crackles, bit 1 wheeze), float in ±1."""
    wave = 0.02 * random.normal(size=samples)
    if label & 1:
        wave[:: RATE // 20] += 0.5
    if label & 2:
        wave += 0.2 * np.sin(2 * np.pi * 400 * np.arange(samples) / RATE)
    return wave


def synthetic_data(seed: int = 0) -> TrainingData:
    """Twelve recordings of twelve patients with three events each; the last recording is also noise."""
    random = np.random.default_rng(seed)
    length = SECONDS * RATE
    waves, rows = [], []
    for recording in range(RECORDINGS):
        wave = 0.02 * random.normal(size=length)
        for event in range(EVENTS_PER_RECORDING):
            label = (recording + event) % 4
            begin, end = event * RATE + 400, event * RATE + 3200
            wave[begin:end] = synthetic_breath(label, end - begin, random)
            rows.append((recording, begin, end, label))
        waves.append(wave.astype(np.float32))
    table = np.array(rows, dtype=np.int64)
    lengths = np.full(RECORDINGS, length, dtype=np.int64)
    bank = AudioBank(torch.from_numpy(np.concatenate(waves)), np.arange(RECORDINGS) * length, lengths)
    patients = np.array([f"p{number}" for number in range(RECORDINGS)])
    events = EventTable(
        table[:, 0], table[:, 1], table[:, 2], table[:, 3], patients[table[:, 0]], np.full(len(table), ANNOTATED)
    )
    return TrainingData(bank=bank, events=events, noise=np.array([RECORDINGS - 1]), patient=patients, heart=bank)
