"""Accuracy of bundles on a corpus with size and speed, and the limits that a release must keep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.core.harness import Row, percentiles
from benchmarks.core.rows import benchmarked_model
from edge_sdk.errors import StethoError
from edge_sdk.metrics import evaluate_predictions, reliability_rows
from edge_sdk.metrics.groups import age_band, evaluate_groups
from edge_sdk.runtime.bundle.load import Bundle

if TYPE_CHECKING:
    from edge_sdk.evaluation.predict import Predictions

FLOORS = ("score", "score_2class", "sensitivity", "sensitivity_2class", "specificity", "auroc", "average_precision")
"""Figures that can have a floor: larger is better."""

CEILINGS = ("ece", "p50_ms", "p99_ms", "bytes")
"""Figures that can have a ceiling: smaller is better."""

GROUPS = ("device", "site", "sex", "age")
_CALLS = 200  # of one cycle, for the latency
_SHOWN = (
    "confusion", "counts", "sensitivity", "specificity", "score", "sensitivity_2class", "score_2class", "auroc",
    "average_precision", "ece",
)  # fmt: skip


class AccuracyError(StethoError):
    """A floor or a ceiling was missed."""


class WatchedEngine:
    """An engine that adds up the time of its calls and keeps the first input, for timing on real audio."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.first: dict[str, Any] | None = None
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the engine and count its time."""
        if self.first is None:
            self.first = dict(inputs)
        before = time.perf_counter_ns()
        outputs: dict[str, npt.NDArray[Any]] = self._engine.run(inputs)
        self.seconds += (time.perf_counter_ns() - before) / 1e9
        return outputs

    def one_by_one(self, calls: int = _CALLS) -> list[float]:
        """Seconds of calls with one cycle each, over the cycles of the first input."""
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
    """The bundle with a watched engine, and that engine."""
    engine = WatchedEngine(bundle.engine)
    return bundle.with_engine(engine), engine


def accuracy_row(
    bundle: Bundle,
    engine: WatchedEngine,
    predicted: Predictions,
    corpus: str,
    split: str,
    *,
    resamples: int,
    quick: bool,
) -> Row:
    """The row of one bundle: scores with intervals, calibration, groups, size and milliseconds per cycle.

    Raises
    ------
    StethoError
        The labels of this corpus do not fit the predictions.
    """
    scoring: dict[str, Any] = {
        "labels": predicted.labels,
        "normal_label": bundle.manifest.decoder.normal_label,
        "predictions": predicted.predictions,
        "classified": predicted.classified,
        "resamples": resamples,
    }
    try:
        figures = evaluate_predictions(predicted.truth, predicted.probabilities, predicted.patients, **scoring)
        groups = {name: _groups(predicted, name, scoring) for name in GROUPS}
    except ValueError as error:
        raise StethoError(f"{bundle.manifest.name} cannot be scored on {corpus}: {error}") from error
    times = percentiles(engine.one_by_one(20 if quick else _CALLS))
    calls = times.pop("n")
    row: Row = {"benchmark": "accuracy", "subject": benchmarked_model(bundle), "corpus": corpus, "split": split}
    row["unit"] = predicted.unit
    row |= {"n": figures["n"], "patients": figures["patients"], "labels": list(predicted.labels)}
    row |= {name: figures.get(name) for name in _SHOWN}
    row |= {f"{name}_ci": figures.get(f"{name}_ci") for name in _SHOWN if f"{name}_ci" in figures}
    row |= {"reliability": _reliability(predicted), "groups": {name: rows for name, rows in groups.items() if rows}}
    row |= {"bytes": bundle.artefact.bytes, **times, "calls": calls, "engine_s": engine.seconds}
    return row


def _groups(predicted: Predictions, name: str, scoring: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures of each group; empty where the corpus has fewer than two."""
    if name == "age":
        groups: list[Any] = [age_band(item.get("age_years")) for item in predicted.metadata]
    else:
        groups = [item.get(name) for item in predicted.metadata]
    if len(set(groups)) < 2:
        return []
    return evaluate_groups(groups, predicted.truth, predicted.probabilities, predicted.patients, **scoring)


def _reliability(predicted: Predictions, bins: int = 10) -> list[dict[str, float | int]]:
    """Confidence of the decided label and its accuracy in non-empty bins of equal width, for a diagram."""
    confidence = np.take_along_axis(predicted.probabilities, predicted.decisions[:, None], 1)[:, 0]
    right = np.array([t == p for t, p in zip(predicted.truth, predicted.predictions, strict=True)], dtype=np.bool_)
    kept = predicted.classified
    return reliability_rows(np.clip(confidence[kept], 0.0, 1.0), right[kept], bins)


def parse_limits(texts: Sequence[str], allowed: Sequence[str], what: str) -> dict[str, float]:
    """Read ``name=value`` pairs.

    Raises
    ------
    ValueError
        A text of another form, or a figure that cannot have such a limit.
    """
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in allowed:
            raise ValueError(f"{name!r} can have no {what}; choose one of {', '.join(allowed)}")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ValueError(f"{text!r} is not NAME=NUMBER, for example {allowed[0]}=0.9") from None
    return limits


def missed_limits(row: Row, floors: Mapping[str, float], ceilings: Mapping[str, float]) -> list[str]:
    """One text per missed limit; an undefined figure misses its limit."""
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
