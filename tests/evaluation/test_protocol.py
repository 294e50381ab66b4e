"""The development protocol: no patient on two sides, folds that neither order nor other labels change, seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.corpora import Corpus, Cycle, Recording
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.predict import Predictions
from edge_sdk.evaluation.protocol import (
    Fold,
    development_corpus,
    device_folds,
    fold_of_patient,
    out_of_fold,
    over_seeds,
    patient_folds,
    pooled,
)

HERE = Path()


def corpus(name: str, patients: int, *devices: str) -> Corpus:
    """Two recordings with a cycle each per patient; every third patient has a wheeze, devices go round."""
    recordings, cycles = [], []
    for k in range(patients):
        for part in "ab":
            device = devices[k % len(devices)]
            recordings.append(Recording(name, f"{k}{part}", HERE, f"p{k}", device=device))
            label = "wheeze" if k % 3 == 0 else "normal"
            cycles.append(Cycle(f"{k}{part}", name, HERE, f"p{k}", 0, 0.0, 1.0, label, label))
    return Corpus(name, HERE, tuple(recordings), tuple(cycles))


def test_every_patient_is_held_out_once_and_never_trains_its_own_fold() -> None:
    corpora = [corpus("one", 23, "A", "B"), corpus("two", 11, "C")]
    folds = patient_folds(corpora, 5, seed=3)
    for whole in corpora:
        held_out = [patient for fold in folds for patient in fold.held_out[whole.name].patients]
        assert sorted(held_out) == list(whole.patients)
        for fold in folds:
            out, train = fold.held_out[whole.name], fold.train[whole.name]
            assert not set(out.patients) & set(train.patients)
            assert {*out.patients, *train.patients} == set(whole.patients)
            assert {cycle.patient for cycle in out.cycles} == set(out.patients)


def test_devices_and_abnormal_patients_are_spread_evenly() -> None:
    whole = corpus("one", 60, "A", "B")
    fold_of = fold_of_patient(whole, 5)
    assert set(Counter(fold_of.values()).values()) == {12}
    for device in "AB":
        on = Counter(fold_of[r.patient] for r in whole.recordings if r.device == device)
        assert max(on.values()) - min(on.values()) <= 4  # two recordings a patient, two kinds of patients
    abnormal = Counter(fold_of[c.patient] for c in whole.cycles if c.label != "normal")
    assert max(abnormal.values()) - min(abnormal.values()) <= 4


def test_folds_depend_on_patients_and_seed_alone() -> None:
    whole = corpus("one", 23, "A", "B")
    folds = fold_of_patient(whole, 5, seed=1)
    turned = replace(whole, recordings=whole.recordings[::-1], cycles=whole.cycles[::-1])
    assert fold_of_patient(turned, 5, seed=1) == folds
    other_label = tuple(replace(c, label="both") if c.label == "wheeze" else c for c in whole.cycles)
    assert fold_of_patient(replace(whole, cycles=other_label), 5, seed=1) == folds
    assert fold_of_patient(whole, 5, seed=2) != folds
    renamed = replace(whole, name="two")
    assert fold_of_patient(renamed, 5, seed=1) != folds


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(CorpusError, match="4 patients cannot make 5 folds"):
        fold_of_patient(corpus("one", 4, "A"))
    with pytest.raises(CorpusError, match="cannot make 1 folds"):
        fold_of_patient(corpus("one", 4, "A"), 1)
    with pytest.raises(CorpusError, match="given twice"):
        patient_folds([corpus("one", 9, "A"), corpus("one", 9, "A")])


def test_a_device_left_out_takes_its_patients_out_of_training() -> None:
    first, second = corpus("one", 6, "A", "B"), corpus("two", 4, "B")
    both = replace(first.recordings[0], id="extra", device="B")  # p0 was recorded with both devices
    first = replace(first, recordings=(*first.recordings, both))
    folds = device_folds([first, second])
    assert [fold.name for fold in folds] == ["A", "B"]
    out_a, out_b = folds
    assert {r.device for r in out_a.held_out["one"].recordings} == {"A"} and "two" not in out_a.held_out
    assert out_a.train["one"].patients == ("p1", "p3", "p5") and len(out_a.train["two"].recordings) == 8
    assert {r.id for r in out_b.held_out["one"].recordings} >= {"extra", "1a", "1b"}
    assert out_b.train["one"].patients == ("p2", "p4") and "two" not in out_b.train  # p0 has a recording of B
    with pytest.raises(CorpusError, match="at least two devices; there is B"):
        device_folds([second])


def test_a_fold_with_a_patient_on_both_sides_cannot_be_made() -> None:
    whole = corpus("one", 5, "A")
    with pytest.raises(CorpusError, match="5 patients are in both"):
        Fold("0", {"one": whole}, {"one": whole})


def predictions(part: Corpus, offset: float = 0.0) -> Predictions:
    n = len(part.cycles)
    return Predictions(
        "cycle",
        ("normal", "abnormal"),
        tuple({"recording": c.recording_id, "patient": c.patient, "start_s": c.start_s} for c in part.cycles),
        tuple(c.patient for c in part.cycles),
        tuple(c.label for c in part.cycles),
        ({},) * n,
        np.tile([0.75 - offset, 0.25 + offset], (n, 1)),
        np.zeros(n, dtype=np.int64),
        np.ones(n, dtype=np.bool_),
    )


def test_out_of_fold_predictions_come_from_the_model_of_their_fold() -> None:
    whole = corpus("one", 11, "A")
    folds = patient_folds([whole], 3)
    found = out_of_fold(folds, "one", lambda k, part: predictions(part, 0.1 * k))
    fold_of = fold_of_patient(whole, 3)
    assert len(found.items) == len(whole.cycles) == len(found.patients)
    for patient, row in zip(found.patients, found.probabilities, strict=True):
        assert row[1] == pytest.approx(0.25 + 0.1 * fold_of[patient])
    with pytest.raises(CorpusError, match="no fold holds out recordings of two"):
        out_of_fold(folds, "two", lambda k, part: predictions(part))


def test_what_is_held_out_twice_or_labelled_otherwise_is_not_pooled() -> None:
    whole = predictions(corpus("one", 3, "A"))
    with pytest.raises(CorpusError, match="recording 0a is held out in more than one fold"):
        pooled([whole, whole])
    with pytest.raises(CorpusError, match="different labels"):
        pooled([whole, replace(predictions(corpus("two", 3, "A")), labels=("normal", "wheeze"))])


def test_figures_over_seeds_have_mean_and_deviation() -> None:
    reports: list[dict[str, Any]] = [
        {"auroc": 0.7, "n": 10, "auroc_ci": (0.6, 0.8), "name": "x", "rate": {"mae": 1.0}, "bias": None, "f1": 0.5},
        {"auroc": 0.8, "n": 10, "auroc_ci": (0.7, 0.9), "name": "x", "rate": {"mae": 3.0}, "bias": None, "f1": None},
        {"auroc": 0.9, "n": 10, "auroc_ci": None, "name": "x", "rate": {"mae": 2.0}, "bias": None, "f1": 0.7},
    ]  # fmt: skip
    summary = over_seeds(reports)
    assert summary["auroc"] == {"mean": pytest.approx(0.8), "sd": pytest.approx(0.1), "n": 3}
    assert summary["rate"]["mae"] == {"mean": 2.0, "sd": 1.0, "n": 3}
    assert summary["n"]["sd"] == 0.0
    assert summary["f1"] == {"mean": pytest.approx(0.6), "sd": pytest.approx(0.1 * 2**0.5), "n": 2}
    assert set(summary) == {"auroc", "n", "rate", "f1"}
    assert over_seeds(reports[:1])["auroc"] == {"mean": 0.7, "sd": None, "n": 1}
    assert over_seeds([{"x": float("nan")}])["x"] == {"mean": None, "sd": None, "n": 0}
    with pytest.raises(ValueError, match="no report"):
        over_seeds([])


@pytest.mark.parametrize(("name", "patients"), [("sprsound", 251), ("icbhi", 49), ("kauh", 57)])
def test_development_corpora_make_five_folds(data_root: Path, name: str, patients: int) -> None:
    whole = development_corpus(name, data_root / name)
    assert len(whole.patients) == patients
    sizes = Counter(fold_of_patient(whole).values())
    assert len(sizes) == 5 and max(sizes.values()) - min(sizes.values()) <= 1


def test_the_protocol_is_of_known_corpora(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="not for 'esc50'"):
        development_corpus("esc50", tmp_path)
