"""Verdicts of whole recordings: AUROC against the seconds of audio, error among the answered, share of uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import bootstrap
from edge_sdk.metrics.calibration import expected_calibration_error, reliability_rows
from edge_sdk.metrics.groups import auroc_within
from edge_sdk.metrics.ranking import auroc

SECONDS: tuple[float, ...] = (3.0, 6.0, 9.0, 15.0)
"""Lengths of audio after which the running verdict is scored, beside the whole recording."""

GRACE_S = 0.5
"""What a running verdict may be determined later than its audio and still count: resampler and network work in steps.

A live stream hands it on up to 0.32 s after that, which is not counted.
"""

UNDECIDED = 0.5
"""Probability that a recording without any counts with: it is ranked between the two classes, never left out."""

VerdictName: TypeAlias = Literal["normal", "abnormal", "uncertain"]
VERDICTS: tuple[VerdictName, ...] = ("normal", "abnormal", "uncertain")


@dataclass(frozen=True, slots=True)
class VerdictTrace:
    """The running verdict of one recording and its truth."""

    recording: str
    patient: str
    device: str | None
    duration_s: float
    abnormal: bool  # the truth
    times_s: Sequence[float]  # [k] seconds of audio consumed at each change of the probability, not decreasing
    p_abnormal: Sequence[float]  # [k] probability from then on
    verdict: VerdictName  # at the end

    def __post_init__(self) -> None:
        if len(self.times_s) != len(self.p_abnormal):
            raise ValueError(f"{self.recording}: {len(self.times_s)} times for {len(self.p_abnormal)} probabilities")
        if (np.diff(self.times_s) < 0).any():
            raise ValueError(f"{self.recording}: the times of the probabilities must not decrease")

    def probability(self, seconds: float | None = None) -> float | None:
        """Probability of abnormal after ``seconds`` of audio (``None``: at the end); ``None`` before the first.

        A running verdict counts up to :data:`GRACE_S` later.
        """
        if seconds is None:
            known = len(self.times_s)
        else:
            known = int(np.searchsorted(self.times_s, seconds + GRACE_S, side="right"))
        return float(self.p_abnormal[known - 1]) if known else None


def verdict_report(
    traces: Sequence[VerdictTrace],
    *,
    seconds: Sequence[float] = SECONDS,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of the verdicts as one mapping for JSON.

    Parameters
    ----------
    traces
        One per recording.
    seconds
        Lengths of audio after which the running verdict is scored; a shorter recording counts with its last verdict.
    resamples, seed
        Of the patient bootstrap; 0 resamples leave the intervals out (``None``).

    Returns
    -------
    dict
        ``n``, ``patients``, ``labels``, ``confusion`` (rows truth: normal, abnormal; columns: normal, abnormal,
        uncertain), ``sensitivity`` and ``specificity`` of the answered, ``error_answered``, ``uncertain_fraction``,
        ``coverage`` (share of recordings whose verdict does not contradict the truth, uncertain ones included),
        ``auroc``, ``auroc_within_device``, ``auroc_of_device``, ``auroc_by_seconds``, ``without_probability``,
        ``ece`` and ``reliability`` of the probability of abnormal, and ``…_ci``. Undefined figures are ``None``.

    Raises
    ------
    ValueError
        There is no recording.
    """
    if not traces:
        raise ValueError("no recording to score")
    truth = np.array([trace.abnormal for trace in traces], dtype=np.bool_)
    final, known = _probabilities(traces, None)
    weights, patient = _resampling([trace.patient for trace in traces], resamples, seed)
    return {
        "n": len(traces),
        "patients": len({trace.patient for trace in traces}),
        **_answers(traces, truth),
        "auroc": auroc(truth, final),
        "auroc_ci": _interval(weights, patient, truth, final),
        **auroc_within(
            [trace.device for trace in traces],
            truth,
            final,
            [trace.patient for trace in traces],
            resamples=resamples,
            seed=seed,
        ),
        "without_probability": int((~known).sum()),
        "ece": expected_calibration_error(final[known], truth[known]),
        "reliability": reliability_rows(final[known], truth[known]),
        "auroc_by_seconds": [_after(traces, truth, horizon, weights, patient) for horizon in (*seconds, None)],
    }


def _probabilities(
    traces: Sequence[VerdictTrace], seconds: float | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Probability of each recording ``[n]``, ``UNDECIDED`` where there is none yet, and whether there is one."""
    values = [trace.probability(seconds) for trace in traces]
    known = np.array([value is not None for value in values], dtype=np.bool_)
    return np.array([UNDECIDED if value is None else value for value in values]), known


def _answers(traces: Sequence[VerdictTrace], truth: npt.NDArray[np.bool_]) -> dict[str, Any]:
    confusion = np.zeros((2, len(VERDICTS)), dtype=np.int64)
    for row, trace in zip(truth.astype(int).tolist(), traces, strict=True):
        confusion[row, VERDICTS.index(trace.verdict)] += 1
    wrong = int(confusion[0, 1] + confusion[1, 0])
    answered = int(confusion[:, :2].sum())
    return {
        "labels": list(VERDICTS),
        "confusion": confusion.tolist(),
        "sensitivity": _ratio(confusion[1, 1], confusion[1, :2].sum()),
        "specificity": _ratio(confusion[0, 0], confusion[0, :2].sum()),
        "error_answered": _ratio(wrong, answered),
        "uncertain_fraction": 1.0 - answered / len(traces),
        "coverage": 1.0 - wrong / len(traces),
    }


def _after(
    traces: Sequence[VerdictTrace],
    truth: npt.NDArray[np.bool_],
    seconds: float | None,
    weights: bootstrap.Floats | None,
    patient: npt.NDArray[np.int64],
) -> dict[str, Any]:
    values, known = _probabilities(traces, seconds)
    return {
        "seconds": seconds,
        "auroc": auroc(truth, values),
        "auroc_ci": _interval(weights, patient, truth, values),
        "with_probability": float(known.mean()),
        "long_enough": 1.0 if seconds is None else float(np.mean([trace.duration_s >= seconds for trace in traces])),
    }


def _resampling(
    patients: Sequence[str], resamples: int, seed: int
) -> tuple[bootstrap.Floats | None, npt.NDArray[np.int64]]:
    patient, n_patients = bootstrap.patient_indices(patients)
    few = n_patients < 2 or resamples < 1
    return None if few else bootstrap.patient_weights(n_patients, resamples, seed), patient


def _interval(
    weights: bootstrap.Floats | None,
    patient: npt.NDArray[np.int64],
    truth: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float64],
) -> list[float] | None:
    if weights is None or auroc(truth, values) is None:
        return None
    bounds = bootstrap.interval(bootstrap.auroc_resamples(weights, patient, truth, values))
    return list(bounds) if bounds else None


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
