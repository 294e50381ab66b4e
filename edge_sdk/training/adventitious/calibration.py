"""Calibration of the verdict on out-of-fold outputs: logistic join, conformal thresholds, familiarity, sounds.

Patients weigh the same, however many recordings they have, in every fit. Figures are cross-fitted: what a fold's
recordings get comes from a calibration on the other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.verdict.adventitious import SOUNDS, SoundParams
from edge_sdk.runtime.verdict.familiarity import FEATURES, FamiliarityParams, SpectrumSums
from edge_sdk.runtime.verdict.params import VerdictParams, length_term, share_logit
from edge_sdk.training.adventitious.cycle_evidence import CycleEvidence
from edge_sdk.training.adventitious.inference import SoundOutputs

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

HORIZONS_S = (6.0, 9.0, 15.0)
"""Usable audio from which on thresholds of their own hold; each is fitted on recordings that are as long."""

FAMILIAR_SHARE = 0.99
"""Share of the calibration recordings that are familiar."""

_LEAST_PATIENTS = 40  # for thresholds of a horizon's own
_LEAST_OF_DEVICE = 5  # recordings for a centre of its own
_SHRINKAGE = 0.1
_LEAST_SPREAD = 0.05
_OFFSET_RIDGE = 1.0  # patients that an offset of a device must outweigh
_RIDGE = 0.02  # per patient, on the weights of the join


@dataclass(frozen=True)
class CalibrationTable:
    """Evidence of n recordings after ``seconds`` of audio, one row each."""

    seconds: Floats  # [n]
    network: Floats  # [n] logits
    cycles: Floats  # [n] mean probability of abnormal; NaN without a labelled cycle
    features: Floats  # [n, FEATURES]
    abnormal: Flags  # [n]
    patient: npt.NDArray[np.str_]  # [n]
    group: npt.NDArray[np.str_]  # [n] corpus and device
    corpus: npt.NDArray[np.str_]  # [n]

    def where(self, kept: Flags) -> CalibrationTable:
        """The rows that are kept."""
        return CalibrationTable(
            self.seconds[kept], self.network[kept], self.cycles[kept], self.features[kept], self.abnormal[kept],
            self.patient[kept], self.group[kept], self.corpus[kept],
        )  # fmt: skip

    @property
    def weight(self) -> Floats:
        """Weight of each row: patients weigh 1."""
        _, index, count = np.unique(self.patient, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / count[index])


def calibration_table(
    outputs: Sequence[SoundOutputs], evidence: CycleEvidence, horizon_s: float | None
) -> CalibrationTable:
    """Evidence after ``horizon_s`` of recordings that are as long; None: of all recordings, to their end.

    Recordings that the classifier's evidence does not cover are left out: at run time nearly every one has cycles, and
    one population must shape the weights with and without them.
    """
    covered = [row for row in outputs if row.recording.noise or evidence.covers(_name(row))]
    kept = [row for row in covered if horizon_s is None or row.duration_s >= horizon_s]
    seconds = [row.duration_s if horizon_s is None else horizon_s for row in kept]
    names = [_name(row) for row in kept]
    return CalibrationTable(
        np.array(seconds, dtype=np.float64),
        np.array([row.logit(horizon_s) for row in kept], dtype=np.float64),
        np.array([evidence.mean(n, horizon_s) for n in names], dtype=np.float64),
        np.array([_features(row, horizon_s) for row in kept]).reshape(-1, FEATURES),
        np.array([row.recording.abnormal for row in kept], dtype=np.bool_),
        np.array([row.recording.patient for row in kept]),
        np.array([f"{row.recording.corpus}/{row.recording.device}" for row in kept]),
        np.array([row.recording.corpus for row in kept]),
    )


def _name(row: SoundOutputs) -> str:
    return f"{row.recording.corpus}/{row.recording.name}"


def _features(row: SoundOutputs, horizon_s: float | None) -> Floats:
    sums = SpectrumSums()
    end = None if horizon_s is None else row.mel_frames(horizon_s)
    sums.add(row.recording.mel[:end])
    return sums.features()


# -- join --------------------------------------------------------------------------------------------------------------


def fit_join(tables: Sequence[CalibrationTable], error: float, familiarity: FamiliarityParams) -> VerdictParams:
    """Logistic weights of the evidence, on the rows of all horizons together; thresholds are not fitted yet."""
    centres = np.eye(len(familiarity.centres))
    columns, abnormal, weight = [], [], []
    for table in tables:
        length = np.array([length_term(s) for s in table.seconds])
        cycles = np.array([np.nan if np.isnan(c) else share_logit(c) for c in table.cycles])
        evidence = np.stack((np.ones_like(length), table.network, cycles, length), axis=1)
        offsets = centres[groups_of(table, familiarity)] if len(centres) else np.zeros((len(length), 0))
        columns.append(np.concatenate((evidence, offsets), axis=1))
        abnormal.append(table.abnormal)
        weight.append(table.weight / len(tables))
    x, y, w = np.concatenate(columns), np.concatenate(abnormal), np.concatenate(weight)
    with_cycles = ~np.isnan(x[:, 2])
    network = _logistic(x, y, w, (0, 1, 3))
    if len(np.unique(y[with_cycles])) < 2:
        return VerdictParams(error=error, both=network, network=network, cycles=(0.0, 0.0, 1.0, 0.0))
    x, y, w = x[with_cycles], y[with_cycles], w[with_cycles]
    both, alone = _logistic(x, y, w, (0, 1, 2, 3)), _logistic(x, y, w, (0, 2, 3))
    return VerdictParams(error=error, both=both, network=network, cycles=alone)


def groups_of(table: CalibrationTable, familiarity: FamiliarityParams) -> npt.NDArray[np.int64]:
    """Centre that each row resembles most, as a stream finds it."""
    return np.array([familiarity.nearest(row)[0] for row in table.features], dtype=np.int64)


def _logistic(x: Floats, y: Flags, w: Floats, used: Sequence[int]) -> tuple[float, ...]:
    """Weights of all columns by Newton steps, 0 where one is not used; evidence may not count against itself.

    The columns after the first four are offsets: always used, and drawn to 0 as by a patient on the other side.
    """
    columns = [*used, *range(4, x.shape[1])]
    a, beta = x[:, columns], np.zeros(len(columns))
    penalty = {0: 0.0, **dict.fromkeys((1, 2, 3), _RIDGE * w.sum())}
    ridge = np.diag([penalty.get(column, _OFFSET_RIDGE) for column in columns])
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-np.clip(a @ beta, -30, 30)))
        gradient = a.T @ (w * (p - y)) + ridge @ beta
        curvature = (a * (w * p * (1 - p) + 1e-9)[:, None]).T @ a + ridge + 1e-9 * np.eye(len(columns))
        beta = beta - np.linalg.solve(curvature, gradient)
    found = dict(zip(columns, beta.tolist(), strict=True))
    if negative := [column for column in (1, 2) if found.get(column, 0.0) < 0]:
        return _logistic(x, y, w, [column for column in used if column not in negative])
    return tuple(round(found.get(column, 0.0), 4) for column in range(x.shape[1]))


def probabilities(params: VerdictParams, table: CalibrationTable, familiarity: FamiliarityParams) -> Floats:
    """Probability of abnormal of each row."""
    groups = groups_of(table, familiarity).tolist()
    rows = zip(table.network.tolist(), table.cycles.tolist(), table.seconds.tolist(), groups, strict=True)
    found = [params.probability(n, None if np.isnan(c) else c, s, group) for n, c, s, group in rows]
    return np.array([0.5 if p is None else p for p in found])


# -- thresholds --------------------------------------------------------------------------------------------------------


def conformal_thresholds(scores: Floats, abnormal: Flags, weight: Floats, error: float) -> tuple[float, float]:
    """Probabilities below which a recording is normal, and from which it is abnormal.

    Split-conformal sets of the score ``1 - p(class)``: a recording whose set holds one class gets that answer, so the
    answered ones are those whose more probable class reaches a level. The level is the lowest at which the share of
    wrong answers among the answered calibration recordings, the recording in question counted as one more wrong one,
    is at most ``error``.

    Parameters
    ----------
    scores, abnormal, weight
        ``[n]`` calibrated probability of abnormal, truth and weight.
    error
        Nominal share of wrong answers.
    """
    sure = np.maximum(scores, 1.0 - scores)
    order = np.argsort(-sure, kind="stable")
    wrong = (weight * ((scores >= 0.5) != abnormal))[order].cumsum()
    one = float(weight.max())
    within = np.flatnonzero((wrong + one) / (weight[order].cumsum() + one) <= error)
    if not len(within):
        return 0.0, 1.0
    if within[-1] == len(scores) - 1:
        return 0.5, 0.5
    level = float(sure[order][within[-1]])
    return 1.0 - level, level


def fit_verdict(
    tables: Mapping[float, CalibrationTable], error: float, familiarity: FamiliarityParams
) -> VerdictParams:
    """Join and thresholds; ``tables`` by horizon."""
    params = fit_join(list(tables.values()), error, familiarity)
    rows = []
    for horizon_s, table in sorted(tables.items()):
        if len(np.unique(table.patient)) < _LEAST_PATIENTS or len(np.unique(table.abnormal)) < 2:
            continue
        low, high = conformal_thresholds(probabilities(params, table, familiarity), table.abnormal, table.weight, error)
        rows.append((horizon_s, round(low, 4), round(max(low, high), 4)))
    thresholds = [(0.0, *row[1:]) if k == 0 else row for k, row in enumerate(rows)] or [(0.0, 0.0, 1.0)]
    fields = {**params.to_dict(), "thresholds": thresholds, **_normals(params, list(tables.values()), familiarity)}
    return VerdictParams.from_dict(fields)


def _normals(
    params: VerdictParams, tables: Sequence[CalibrationTable], familiarity: FamiliarityParams
) -> dict[str, float]:
    """Mean score of normal recordings, its spread within a device, and the spread of the devices' means."""
    scores, raw, weight, device = [], [], [], []
    for table in tables:
        normal = table.where(~table.abnormal)
        groups = groups_of(normal, familiarity).tolist()
        for k, group in enumerate(groups):
            cycles = None if np.isnan(normal.cycles[k]) else float(normal.cycles[k])
            evidence = (float(normal.network[k]), cycles, float(normal.seconds[k]))
            scores.append(params.score(*evidence, group) or 0.0)
            raw.append(params.score(*evidence, None) or 0.0)
        weight += normal.weight.tolist()
        device += normal.group.tolist()
    if not scores:
        return {}
    found, bare, w, names = np.array(scores), np.array(raw), np.array(weight), np.array(device)
    means = {name: float(np.average(bare[names == name], weights=w[names == name])) for name in np.unique(names)}
    within = bare - np.array([means[name] for name in names.tolist()])
    spread = float(np.sqrt(np.average(np.square(within), weights=w)))
    between = float(np.std(list(means.values()))) if len(means) > 1 else 0.0
    return {
        "normal_score": round(float(np.average(found, weights=w)), 4),
        "normal_spread": round(max(spread, _LEAST_SPREAD), 4),
        "device_spread": round(max(between, _LEAST_SPREAD), 4),
    }


# -- familiarity -------------------------------------------------------------------------------------------------------


def fit_familiarity(table: CalibrationTable, share: float = FAMILIAR_SHARE) -> FamiliarityParams:
    """Centres of the devices, their common covariance, and the distance within which ``share`` of the rows lies."""
    centres, residuals = [], []
    for group in np.unique(table.group):
        rows = table.features[table.group == group]
        if len(rows) >= _LEAST_OF_DEVICE:
            centres.append(rows.mean(axis=0))
            residuals.append(rows - centres[-1])
    if not centres:
        return FamiliarityParams()
    covariance = np.cov(np.concatenate(residuals).T)
    mean_variance = np.trace(covariance) / FEATURES
    covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * mean_variance * np.eye(FEATURES)
    values, vectors = np.linalg.eigh(covariance)
    params = FamiliarityParams(
        centres=tuple(tuple(np.round(row, 4).tolist()) for row in centres),
        whitening=tuple(tuple(np.round(row, 4).tolist()) for row in vectors / np.sqrt(values)),
    )
    distances = [params.distance(row) for row in table.features]
    farthest = round(float(np.quantile(distances, share, method="higher")), 4)
    return FamiliarityParams(params.centres, params.whitening, farthest)


# -- sounds ------------------------------------------------------------------------------------------------------------


def fit_detector(outputs: Sequence[SoundOutputs], error: float) -> SoundParams:
    """Thresholds of crackle and wheeze: at most ``error`` of the patients' recordings without one have an event."""
    found = []
    for index in range(len(SOUNDS)):
        rows = [row for row in outputs if not row.recording.present[index]]
        if not rows:
            found.append(SoundParams().crackle_from)
            continue
        peaks = np.array([row.frames[index].max(initial=0.0) for row in rows])
        _, patient, count = np.unique([row.recording.patient for row in rows], return_inverse=True, return_counts=True)
        order = np.argsort(-peaks)
        share = np.cumsum((1.0 / count[patient])[order]) / len(count)
        edge = peaks[order][min(int(np.searchsorted(share, error, side="right")), len(peaks) - 1)]
        found.append(float(np.clip(round(float(edge) + 1e-4, 4), 0.3, 0.98)))
    return SoundParams(crackle_from=found[0], wheeze_from=found[1])
