"""The verdict's calibration from out-of-fold outputs, and what it achieves on folds it was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.ranking import auroc
from edge_sdk.runtime.verdict.adventitious import SOUNDS, SoundDetector, SoundParams
from edge_sdk.runtime.verdict.familiarity import FamiliarityParams
from edge_sdk.runtime.verdict.params import VerdictParams, answer_of
from edge_sdk.training.adventitious.breaths import Breaths, breaths_of, read_table
from edge_sdk.training.adventitious.calibration import (
    HORIZONS_S,
    CalibrationTable,
    calibration_table,
    fit_detector,
    fit_familiarity,
    fit_verdict,
    probabilities,
)
from edge_sdk.training.adventitious.cycle_evidence import CycleEvidence
from edge_sdk.training.adventitious.inference import SoundOutputs
from edge_sdk.training.adventitious.run import FIGURES, recording_figures
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection

Flags = npt.NDArray[np.bool_]


def figures_by_corpus(outputs: Sequence[SoundOutputs]) -> dict[str, Any]:
    """Figures of the network for each corpus; of one with a single class, the share above a logit of 0."""
    by: dict[str, list[SoundOutputs]] = {}
    for row in outputs:
        by.setdefault(row.recording.corpus, []).append(row)
    figures: dict[str, Any] = {}
    for name, rows in sorted(by.items()):
        if len({row.recording.abnormal for row in rows}) > 1:
            figures[name] = recording_figures(rows)
        else:
            figures[name] = {"n": len(rows), "above_half": float(np.mean([row.logit() > 0.0 for row in rows]))}
    return figures


def check_evidence(settings: AdventitiousSection) -> None:
    """Read what the calibration needs beside the network, so that a wrong file ends a run before hours of training.

    Raises
    ------
    RecipeError
        A file of ``adventitious.cycles`` or the folder of ``adventitious.breaths`` cannot be used.
    """
    CycleEvidence(settings.cycles)
    if settings.breaths is not None:
        read_table(Path(settings.breaths))


def calibrate(
    outputs: Sequence[SoundOutputs], fold: Mapping[str, int], settings: AdventitiousSection
) -> dict[str, Any]:
    """Fit the calibration on all recordings; figures are of calibrations on the other folds.

    Parameters
    ----------
    outputs
        Of every recording and noise, out of fold.
    fold
        Of each patient.
    settings
        Nominal error, and the cycles of a classifier.

    Returns
    -------
    dict
        Settings by name, as a bundle's entry has them (see :func:`fit_calibration`), and ``figures``.
    """
    evidence = CycleEvidence(settings.cycles)
    breath = [row for row in outputs if not row.recording.noise]
    noise = [row for row in outputs if row.recording.noise]
    breaths = breaths_of(outputs, settings)
    calibration = _fitted(outputs, settings, breaths)
    figures: dict[str, Any] = {"corpora": _cross_fitted(breath, fold, evidence, settings.error)}
    if noise:
        figures["noise"] = _noise_figures(noise, calibration, evidence)
    if breaths is not None:
        figures["breaths"] = breaths.figures(fold)
    figures["sounds"] = _sound_figures(breath, SoundParams.from_dict(calibration["detector"]))
    return {**calibration, FIGURES: figures}


def fit_calibration(outputs: Sequence[SoundOutputs], settings: AdventitiousSection) -> dict[str, Any]:
    """Fit the calibration; ``params``, ``familiarity``, ``detector`` and, if set, ``breaths``."""
    return _fitted(outputs, settings, breaths_of(outputs, settings))


def _fitted(outputs: Sequence[SoundOutputs], settings: AdventitiousSection, breaths: Breaths | None) -> dict[str, Any]:
    breath = [row for row in outputs if not row.recording.noise]
    tables = _tables(breath, CycleEvidence(settings.cycles))
    familiarity = fit_familiarity(_both(tables[0.0], tables[6.0]))
    found = {
        "params": fit_verdict(_by_horizon(tables), settings.error, familiarity).to_dict(),
        "familiarity": familiarity.to_dict(),
        "detector": fit_detector(breath, settings.error).to_dict(),
    }
    return found if breaths is None else {**found, "breaths": breaths.fit(settings).to_dict()}


def _tables(outputs: Sequence[SoundOutputs], evidence: CycleEvidence) -> dict[float, CalibrationTable]:
    """By horizon; 0: recordings to their end."""
    tables = {horizon_s: calibration_table(outputs, evidence, horizon_s) for horizon_s in HORIZONS_S[:-1]}
    whole = calibration_table(outputs, evidence, None)
    return {**tables, HORIZONS_S[-1]: whole.where(whole.seconds >= HORIZONS_S[-1]), 0.0: whole}


def _by_horizon(tables: Mapping[float, CalibrationTable]) -> dict[float, CalibrationTable]:
    return {horizon_s: table for horizon_s, table in tables.items() if horizon_s and len(table.seconds)}


def _both(one: CalibrationTable, other: CalibrationTable) -> CalibrationTable:
    names = ("seconds", "network", "cycles", "features", "abnormal", "patient", "group", "corpus")
    return CalibrationTable(*(np.concatenate((getattr(one, name), getattr(other, name))) for name in names))


def _cross_fitted(
    breath: Sequence[SoundOutputs], fold: Mapping[str, int], evidence: CycleEvidence, error: float
) -> dict[str, Any]:
    """Figures of each corpus, and of all of them, from calibrations on the other folds."""
    parts: dict[str, list[tuple[CalibrationTable, np.ndarray, np.ndarray]]] = {"end": [], "6s": []}
    for number in sorted({fold[row.recording.patient] for row in breath}):
        fitted = [row for row in breath if fold[row.recording.patient] != number]
        scored = [row for row in breath if fold[row.recording.patient] == number]
        tables = _tables(fitted, evidence)
        familiarity = fit_familiarity(_both(tables[0.0], tables[6.0]))
        params = fit_verdict(_by_horizon(tables), error, familiarity)
        held = _tables(scored, evidence)
        for name, table in (("end", held[0.0]), ("6s", held[6.0])):
            chances = probabilities(params, table, familiarity)
            parts[name].append((table, chances, _answers(params, familiarity, table, chances)))
    figures: dict[str, Any] = {}
    for name, rows in parts.items():
        corpus = np.concatenate([table.corpus for table, _, _ in rows])
        abnormal = np.concatenate([table.abnormal for table, _, _ in rows])
        chances = np.concatenate([p for _, p, _ in rows])
        answers = np.concatenate([a for _, _, a in rows])
        for which in (*np.unique(corpus).tolist(), "all"):
            chosen = np.ones(len(corpus), np.bool_) if which == "all" else corpus == which
            figures.setdefault(which, {})[name] = _scored(abnormal[chosen], chances[chosen], answers[chosen])
    return figures


def _answers(
    params: VerdictParams, familiarity: FamiliarityParams, table: CalibrationTable, chances: npt.NDArray[np.float64]
) -> npt.NDArray[np.str_]:
    """``normal``, ``abnormal``, ``uncertain`` or the reason, as a stream of usable audio gives them."""
    rows = zip(chances.tolist(), table.seconds.tolist(), table.features, strict=True)
    return np.array([answer_of(params, familiarity, *row) for row in rows])


def _scored(abnormal: Flags, chances: npt.NDArray[np.float64], answers: npt.NDArray[np.str_]) -> dict[str, Any]:
    long_enough = answers != "too-little-audio"
    answered = np.isin(answers, ("normal", "abnormal"))
    wrong = answered & ((answers == "abnormal") != abnormal)
    return {
        "n": len(abnormal),
        "auroc": auroc(abnormal, chances),
        "error_answered": float(wrong.sum() / answered.sum()) if answered.any() else None,
        "uncertain_fraction": float(1.0 - answered[long_enough].mean()) if long_enough.any() else None,
        "too_little_audio": float(1.0 - long_enough.mean()),
        "unfamiliar": float((answers == "unfamiliar").mean()),
    }


def _noise_figures(
    noise: Sequence[SoundOutputs], calibration: Mapping[str, Any], evidence: CycleEvidence
) -> dict[str, Any]:
    """Of each kind of noise: shares of the recordings by their verdict, short ones as if they were repeated."""
    params = VerdictParams.from_dict(calibration["params"])
    familiarity = FamiliarityParams.from_dict(calibration["familiarity"])
    table = calibration_table(noise, evidence, None)
    # As if a short clip were repeated: most have 5 s, which no verdict is given on.
    table = replace(table, seconds=np.maximum(table.seconds, HORIZONS_S[1]))
    answers = _answers(params, familiarity, table, probabilities(params, table, familiarity))
    kinds = np.array([row.recording.device for row in noise])
    figures = {}
    for kind in (*np.unique(kinds).tolist(), "all"):
        chosen = answers[kinds == kind] if kind != "all" else answers
        figures[kind] = {name: float((chosen == name).mean()) for name in sorted(set(chosen.tolist()))} | {
            "n": len(chosen)
        }
    return figures


def _sound_figures(breath: Sequence[SoundOutputs], params: SoundParams) -> dict[str, Any]:
    """Of crackle and wheeze: share of annotated sounds that an event overlaps, and of recordings without any."""
    figures: dict[str, Any] = {}
    for index, sound in enumerate(SOUNDS):
        hits = total = clean = false = 0
        for row in breath:
            detector = SoundDetector(params, row.step_s)
            events = [*detector.accept(0, row.frames[:2].astype(np.float32)), *detector.finish()]
            found = [(e.begin * row.step_s, e.end * row.step_s) for e in events if e.kind == sound]
            if not row.recording.present[index]:
                clean, false = clean + 1, false + bool(found)
            for (begin_s, end_s), sounds in zip(row.recording.spans_s, row.recording.sounds, strict=True):
                if row.recording.strong and sounds[index]:
                    total, hits = total + 1, hits + any(b < end_s and e > begin_s for b, e in found)
        figures[sound] = {
            "recall": hits / total if total else None,
            "annotated": total,
            "recordings_without": clean,
            "with_false_event": false / clean if clean else None,
        }
    return figures
