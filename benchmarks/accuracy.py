"""Accuracy of bundles on a corpus beside size and speed, and the floors under which a release fails."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.core.harness import Row, percentiles
from edge_sdk.errors import StethoError
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.metrics.groups import age_band, evaluate_groups
from edge_sdk.runtime.bundle.load import Bundle

FLOORS = ("score", "score_2class", "sensitivity", "sensitivity_2class", "specificity", "auroc", "average_precision")
"""Figures that may have a floor: larger is better."""

CEILINGS = ("ece", "p50_ms", "p99_ms", "bytes")
"""Figures that may have a ceiling: smaller is better."""

GROUPS = ("device", "site", "sex", "age")
_CALLS = 200  # of one breath, for the milliseconds
_SHOWN = (
    "confusion", "counts", "sensitivity", "specificity", "score", "sensitivity_2class", "score_2class", "auroc",
    "average_precision", "ece",
)  # fmt: skip


class AccuracyError(StethoError):
    """A floor or a ceiling was missed."""


class Answered(Protocol):
    """Truth and answers of a corpus, item by item."""

    @property
    def unit(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def patients(self) -> tuple[str, ...]: ...
    @property
    def truth(self) -> tuple[str, ...]: ...
    @property
    def known(self) -> tuple[Mapping[str, Any], ...]: ...
    @property
    def probabilities(self) -> npt.NDArray[np.float64]: ...
    @property
    def predictions(self) -> list[str]: ...
    @property
    def answered(self) -> npt.NDArray[np.bool_]: ...


class WatchedEngine:
    """An engine that counts its calls and keeps the first input, for timing on real sound."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.first: dict[str, Any] | None = None
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As the engine's."""
        if self.first is None:
            self.first = dict(inputs)
        before = time.perf_counter_ns()
        outputs: dict[str, npt.NDArray[Any]] = self._engine.run(inputs)
        self.seconds += (time.perf_counter_ns() - before) / 1e9
        return outputs

    def one_by_one(self, calls: int = _CALLS) -> list[float]:
        """Seconds of calls of one breath each, over the breaths of the first input."""
        if self.first is None:
            return []
        count = max(len(v) for v in self.first.values())
        seconds = []
        for index in range(calls + 5):
            k = index % count
            inputs = {name: value[k : k + 1] for name, value in self.first.items()}
            before = time.perf_counter_ns()
            self._engine.run(inputs)
            seconds.append((time.perf_counter_ns() - before) / 1e9)
        return seconds[5:]


def watched(bundle: Bundle) -> tuple[Bundle, WatchedEngine]:
    """The same bundle, whose engine is watched."""
    own = copy.copy(bundle)
    engine = WatchedEngine(bundle.engine)
    own.engine = engine
    return own, engine


def accuracy_row(
    bundle: Bundle, engine: WatchedEngine, answers: Answered, corpus: str, split: str, *, resamples: int, quick: bool
) -> Row:
    """Everything to decide by: scores with intervals, calibration, groups, size and milliseconds a breath.

    Raises
    ------
    StethoError
        The answers cannot be scored with the labels of this corpus.
    """
    scoring: dict[str, Any] = {
        "labels": answers.labels,
        "normal_label": bundle.manifest.decoder.normal_label,
        "predictions": answers.predictions,
        "answered": answers.answered,
        "resamples": resamples,
    }
    try:
        figures = evaluate_predictions(answers.truth, answers.probabilities, answers.patients, **scoring)
        groups = {name: _groups(answers, name, scoring) for name in GROUPS}
    except ValueError as error:
        raise StethoError(f"{bundle.manifest.name} cannot be scored on {corpus}: {error}") from error
    times = percentiles(engine.one_by_one(20 if quick else _CALLS))
    calls = times.pop("n")
    subject = {
        "model": f"{bundle.manifest.name} {bundle.manifest.version}",
        "artefact": bundle.artefact.format,
        "engine": bundle.engine.name,
        "threads": 1,
        "batch": 1,
    }
    row: Row = {"benchmark": "accuracy", "subject": subject, "corpus": corpus, "split": split, "unit": answers.unit}
    row |= {"n": figures["n"], "patients": figures["patients"], "labels": list(answers.labels)}
    row |= {name: figures.get(name) for name in _SHOWN}
    row |= {f"{name}_ci": figures.get(f"{name}_ci") for name in _SHOWN if f"{name}_ci" in figures}
    row |= {"reliability": _reliability(answers), "groups": {name: rows for name, rows in groups.items() if rows}}
    row |= {"bytes": bundle.artefact.bytes, **times, "calls": calls, "engine_s": engine.seconds}
    return row


def _groups(answers: Answered, name: str, scoring: dict[str, Any]) -> list[dict[str, Any]]:
    """Empty where the corpus does not tell the groups apart."""
    if name == "age":
        groups: list[Any] = [age_band(known.get("age_years")) for known in answers.known]
    else:
        groups = [known.get(name) for known in answers.known]
    if len(set(groups)) < 2:
        return []
    return evaluate_groups(groups, answers.truth, answers.probabilities, answers.patients, **scoring)


def _reliability(answers: Answered, bins: int = 10) -> list[dict[str, float | int]]:
    """Confidence of the decided label against how often it is right, for a diagram: non-empty bins of equal width."""
    index = np.array([answers.labels.index(p) for p in answers.predictions])
    confidence = answers.probabilities[np.arange(len(index)), index]
    right = np.array([t == p for t, p in zip(answers.truth, answers.predictions, strict=True)], np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows: list[dict[str, float | int]] = []
    for k in range(bins):
        inside = (place == k) & answers.answered
        if inside.any():
            rows.append(
                {
                    "confidence": float(confidence[inside].mean()),
                    "accuracy": float(right[inside].mean()),
                    "n": int(inside.sum()),
                }
            )
    return rows


def parse_limits(texts: Sequence[str], known: Sequence[str], what: str) -> dict[str, float]:
    """``name=value`` pairs.

    Raises
    ------
    ValueError
        Not of that form, or a figure that cannot have such a limit.
    """
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise ValueError(f"{name!r} can have no {what}; choose one of {', '.join(known)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ValueError(f"{text!r} is not NAME=NUMBER, for example {known[0]}=0.9") from None
    return limits


def missed_limits(row: Row, floors: Mapping[str, float], ceilings: Mapping[str, float]) -> list[str]:
    """What the row misses, in words; a figure that is undefined misses its limit."""
    missed = []
    for name, limit, below in (
        *((n, v, True) for n, v in floors.items()),
        *((n, v, False) for n, v in ceilings.items()),
    ):
        value = row.get(name)
        if value is None or value != value:
            missed.append(f"{name} is undefined on this split")
        elif below and value < limit:
            missed.append(f"{name} {value:.4g} is below the floor {limit:g}")
        elif not below and value > limit:
            missed.append(f"{name} {value:.4g} is above the ceiling {limit:g}")
    return missed
