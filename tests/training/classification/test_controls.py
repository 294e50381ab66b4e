"""The metadata-only control is fitted to the training side alone and handles unknown values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError
from edge_sdk.metrics import auroc
from edge_sdk.training.classification.controls import metadata_only

LABELS = ("normal", "crackle", "wheeze", "both")


def cycle(label: str, device: str | None, age: float | None = None, patient: str = "p") -> Cycle:
    return Cycle("r", "csv", Path("r.wav"), patient, 0, 0.0, 2.0, label, label, device=device, age_years=age)


TRAIN = [cycle("normal", "A", 5.0)] * 20 + [cycle("wheeze", "B", 60.0)] * 20


def test_a_device_that_stands_for_a_label_is_found_out() -> None:
    test = [cycle("normal", "A"), cycle("wheeze", "B"), cycle("normal", "A"), cycle("wheeze", "B")]
    probabilities = metadata_only(TRAIN, test, LABELS)
    assert probabilities.shape == (4, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert auroc([False, True, False, True], 1 - probabilities[:, 0]) == 1.0
    assert (probabilities[:, [1, 3]] == 0).all()  # never seen in training


def test_new_names_and_missing_values_get_probabilities_too() -> None:
    probabilities = metadata_only(
        TRAIN, [cycle("normal", "C"), cycle("normal", None), cycle("normal", "A", None)], LABELS
    )
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_allclose(probabilities[0], probabilities[1])  # a name that training never saw is an unknown one


def test_one_class_is_not_enough() -> None:
    with pytest.raises(CorpusError, match="two classes"):
        metadata_only(TRAIN[:5], TRAIN, LABELS)
