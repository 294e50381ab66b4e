"""Calibration of the verdict: conformal thresholds keep their error on new patients, weights fall to the evidence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import RecipeError
from edge_sdk.runtime.verdict.familiarity import FEATURES, FamiliarityParams
from edge_sdk.training.adventitious.calibration import (
    CalibrationTable,
    conformal_thresholds,
    fit_familiarity,
    fit_join,
    fit_verdict,
    groups_of,
    probabilities,
)
from edge_sdk.training.adventitious.cycle_evidence import CycleEvidence

ALIKE = FamiliarityParams()
"""Of no device in particular."""


def table(
    patients: int, *, separation: float, seed: int, cycles: float | None = None, each: int = 3, seconds: float = 9.0
) -> CalibrationTable:
    """Recordings whose logits differ by ``separation`` standard deviations between the classes."""
    random = np.random.default_rng(seed)
    n = patients * each
    patient = np.repeat([f"p{k}" for k in range(patients)], each)
    abnormal = np.repeat(random.random(patients) < 0.4, each)
    place = separation * (abnormal - 0.5)
    means = np.full(n, np.nan)
    if cycles is not None:
        means = 1.0 / (1.0 + np.exp(-(cycles * (abnormal - 0.5) + random.standard_normal(n))))
    features = random.standard_normal((n, FEATURES))
    group = np.where(np.arange(n) % 2, "a/one", "a/two")
    features[group == "a/two"] += 20.0
    return CalibrationTable(
        np.full(n, seconds), place + random.standard_normal(n), means, features, abnormal, patient, group,
        np.full(n, "a"),
    )  # fmt: skip


def wrong_and_answered(separation: float, error: float) -> tuple[float, float]:
    """Share of wrong answers among the answered, and share of the answered, on patients of eight other draws."""
    wrong = given = total = 0
    for seed in range(8):
        params = fit_verdict({6.0: table(300, separation=separation, seed=seed)}, error, ALIKE)
        new = table(600, separation=separation, seed=1000 + seed)
        names = np.array([params.answer(p, 9.0) for p in probabilities(params, new, ALIKE).tolist()])
        answered = names != "uncertain"
        wrong += int(((names == "abnormal") != new.abnormal)[answered].sum())
        given, total = given + int(answered.sum()), total + len(names)
    return wrong / given, given / total


@pytest.mark.parametrize(("separation", "error"), [(1.5, 0.05), (2.0, 0.05), (1.5, 0.1), (2.0, 0.1)])
def test_the_share_of_wrong_answers_is_the_nominal_one_on_new_patients(separation: float, error: float) -> None:
    wrong, answered = wrong_and_answered(separation, error)
    assert abs(wrong - error) < 0.02
    assert 0.1 < answered < 1.0


def test_an_easy_question_is_always_answered_and_no_worse_than_stated() -> None:
    wrong, answered = wrong_and_answered(3.0, 0.1)
    assert answered == 1.0 and wrong < 0.1


def test_classes_that_are_far_apart_always_get_an_answer() -> None:
    fitted = table(300, separation=6.0, seed=1)
    params = fit_verdict({6.0: fitted}, 0.1, ALIKE)
    low, high = params.thresholds[0][1:]
    assert low == high and 0.0 < low < 1.0


def test_without_any_separation_nothing_is_answered_wrongly_more_often_than_stated() -> None:
    fitted = table(300, separation=0.0, seed=2)
    scores = np.random.default_rng(0).random(len(fitted.abnormal))
    low, high = conformal_thresholds(scores, fitted.abnormal, fitted.weight, 0.1)
    called, cleared = scores >= high, scores < low
    answered = called | cleared
    wrong = (called & ~fitted.abnormal) | (cleared & fitted.abnormal)
    assert answered.mean() < 0.2
    assert (fitted.weight * wrong).sum() <= 0.1 * max(1e-9, (fitted.weight * answered).sum())


def test_a_patient_with_many_recordings_weighs_as_one() -> None:
    one = table(60, separation=2.0, seed=3, each=1)
    many = CalibrationTable(*(np.concatenate((v, np.repeat(v[:1], 500, axis=0))) for v in vars(one).values()))
    assert many.weight.sum() == pytest.approx(60.0)
    first, second = fit_join([one], 0.1, ALIKE), fit_join([many], 0.1, ALIKE)
    np.testing.assert_allclose(first.network, second.network, atol=1e-3)


def test_the_join_weighs_both_and_works_with_one() -> None:
    params = fit_join([table(400, separation=1.0, seed=4, cycles=3.0)], 0.1, ALIKE)
    assert params.both[2] > params.both[1] > 0.0
    assert params.network[2] == 0.0 and params.cycles[1] == 0.0
    assert params.cycles[2] > 0.5
    without = fit_join([table(400, separation=1.0, seed=4)], 0.1, ALIKE)
    assert without.both == without.network and without.cycles == (0.0, 0.0, 1.0, 0.0)


def test_an_offset_of_a_device_is_found_and_that_of_a_rare_one_is_small() -> None:
    fitted = table(400, separation=2.0, seed=11, each=2)  # rows of a patient lie on both devices in turn
    moved = np.where(fitted.group == "a/two", fitted.network + 2.0, fitted.network)
    shifted = replace(fitted, network=moved)
    familiarity = fit_familiarity(shifted)
    assert set(groups_of(shifted, familiarity).tolist()) == {0, 1}
    params = fit_join([shifted], 0.1, familiarity)
    one, two = params.network[4:]
    assert one - two == pytest.approx(2.0 * params.network[1], rel=0.15)
    chances = probabilities(params, shifted, familiarity)
    means = [chances[fitted.group == group].mean() for group in ("a/one", "a/two")]
    assert means[0] == pytest.approx(means[1], abs=0.03)
    rare = shifted.where((fitted.group == "a/one") | (np.arange(len(moved)) < 12))
    assert abs(fit_join([rare], 0.1, fit_familiarity(rare)).network[5]) < 0.6 * abs(two)


def test_evidence_never_counts_against_itself() -> None:
    fitted = table(400, separation=-2.0, seed=5, cycles=3.0)
    params = fit_join([fitted], 0.1, ALIKE)
    assert params.both[1] == 0.0 and params.network[1] == 0.0 and params.both[2] > 0.0


def test_thresholds_of_a_length_need_enough_patients() -> None:
    tables = {
        6.0: table(100, separation=2.0, seed=6, seconds=6.0),
        9.0: table(100, separation=3.0, seed=7, seconds=9.0),
        15.0: table(10, separation=3.0, seed=8, seconds=15.0),
    }
    assert [row[0] for row in fit_verdict(tables, 0.1, ALIKE).thresholds] == [0.0, 9.0]
    few = fit_verdict({6.0: tables[15.0]}, 0.1, ALIKE)
    assert few.answer(0.999, 9.0) == "uncertain" and few.answer(0.001, 9.0) == "uncertain"


def test_familiarity_has_a_centre_for_each_device_and_lets_one_in_a_hundred_out() -> None:
    fitted = table(200, separation=1.0, seed=9)
    params = fit_familiarity(fitted)
    assert len(params.centres) == 2
    new = table(200, separation=1.0, seed=10)
    beyond = np.mean([params.distance(row) > params.farthest for row in new.features])
    assert beyond < 0.04
    assert params.distance(np.full(FEATURES, 10.0)) > params.farthest  # between both devices


def test_cycles_are_read_from_predictions_and_screenings(tmp_path: Path) -> None:
    rows = [
        {"type": "cycle", "source": "ward/a.wav", "end_s": 2.0, "probabilities": {"normal": 0.9, "crackle": 0.1}},
        {"type": "cycle", "source": "ward/a.wav", "end_s": 7.0, "probabilities": {"normal": 0.1, "crackle": 0.9}},
        {"type": "cycle", "source": "ward/a.wav", "end_s": 8.0, "probabilities": {}},
        {"recording": "b", "end_s": 1.0, "probabilities": {"normal": 0.5, "wheeze": 0.5}},
        {"type": "summary", "source": "ward/a.wav"},
        {"type": "summary", "source": "ward/c.wav"},
    ]
    path = tmp_path / "cycles.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    evidence = CycleEvidence([f"icbhi={path}"])
    assert evidence.mean("icbhi/a") == pytest.approx(0.5) and evidence.mean("icbhi/a", 6.0) == pytest.approx(0.1)
    assert [evidence.covers(name) for name in ("icbhi/a", "icbhi/c", "icbhi/d", "kauh/a")] == [True, True, False, False]
    assert CycleEvidence([]).covers("kauh/a") and math.isnan(CycleEvidence([]).mean("kauh/a"))
    assert evidence.mean("icbhi/b") == pytest.approx(0.5) and math.isnan(evidence.mean("kauh/a"))
    for entry in ("cycles.jsonl", f"icbhi={tmp_path / 'none.jsonl'}"):
        with pytest.raises(RecipeError, match=r"adventitious\.cycles"):
            CycleEvidence([entry])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(RecipeError, match="holds no cycle"):
        CycleEvidence([f"icbhi={tmp_path / 'empty.jsonl'}"])
