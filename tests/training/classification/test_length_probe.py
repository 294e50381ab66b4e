"""The probe finds a length that an embedding holds, and none that it does not; the study cuts equal windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.length_leak import EmbeddingOfGraph, equal_lengths, length_leak
from edge_sdk.corpora import load_corpus
from edge_sdk.training.classification.length_probe import probe_length

_N = 400


def test_a_length_in_the_embedding_is_found_on_other_patients() -> None:
    random = np.random.default_rng(0)
    lengths = random.uniform(0.4, 2.5, _N)
    abnormal = random.random(_N) < np.where(lengths < 1.2, 0.8, 0.2)  # short ones are abnormal
    patients = [f"p{k % 20}" for k in range(_N)]
    noise = random.normal(size=(_N, 8))
    held = probe_length(np.column_stack([noise, np.log(lengths)]), lengths, abnormal, patients)
    free = probe_length(noise, lengths, abnormal, patients)
    assert held.r2 > 0.95 and held.auroc is not None and held.auroc > 0.7
    assert free.r2 < 0.05 and free.auroc is not None and abs(free.auroc - 0.5) < 0.1


def test_a_length_known_by_patient_alone_is_not_counted() -> None:
    """A column that names the patient helps only where patients are on both sides."""
    random = np.random.default_rng(1)
    patient = np.repeat(np.arange(20), 20)
    lengths = np.exp(random.normal(size=20)[patient] * 0.5)
    abnormal = random.random(_N) < 0.5
    found = probe_length(np.eye(20)[patient], lengths, abnormal, [f"p{k}" for k in patient])
    assert found.r2 < 0.1


@pytest.fixture(scope="module")
def leak(data_root: Path) -> dict[str, dict[str, dict[str, float]]]:
    corpus = load_corpus("sprsound", data_root / "sprsound", split="val")
    kept = corpus.where(lambda recording: recording.patient in corpus.patients[:16])
    windows = {round(cycle.duration_s, 6) for cycle in equal_lengths(kept).cycles}
    assert len(kept.cycles) > 200 and windows <= {1.2}
    return length_leak(EmbeddingOfGraph("default"), kept)


def test_windows_of_equal_length_tell_less_of_the_length_than_cycles_as_annotated(
    leak: dict[str, dict[str, dict[str, float]]],
) -> None:
    """Of the bundle that ships: its cyclic windows show the length; a network without the leak has no such gap."""
    as_annotated, equal = leak["as_annotated"]["probe"]["r2"], leak["equal_length"]["probe"]["r2"]  # type: ignore[index]
    assert as_annotated > equal
