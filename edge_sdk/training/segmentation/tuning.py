"""Search of the decoder's settings on held-out patients: cycles and rates, within bounds on delay and revisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.segmentation.building import decoder_params, segment_section
from edge_sdk.training.segmentation.excerpts import Annotation
from edge_sdk.training.segmentation.inference import NetworkOutputs, emit

_BATCH = 8  # candidates between two moves of the centre
_PARENTS = 6  # best candidates whose mean is the centre: one lucky candidate must not decide
_WIDTH, _WIDER, _NARROWER = 0.5, 1.05, 0.93


@dataclass(frozen=True)
class Bounds:
    """Limits of the shipped decoder; the search subtracts a price from the merit for what exceeds them."""

    detection_delay_p95_s: float = 0.62  # onset to announcement
    revision_rate: float = 0.09


_PRICES = {"detection_delay_p95_s": 0.5, "revision_rate": 1.0}
"""Of merit, for each unit beyond a bound."""

_MERITS = {
    Annotation.CYCLES: {"event_f1": 1.0, "onset_f1_200ms": 0.5, "rate_within_15pct": 0.5},
    Annotation.EVENTS: {"event_f1_regional": 0.7, "rate_within_15pct": 0.3},
    Annotation.EXACT: {"event_f1": 1.0, "rate_within_15pct": 0.5},
}
"""Merits of a decoder by what is annotated: only inside the annotated regions where silence is not annotated."""

_FACTORS = (  # settings that are moved by factors, exp(0.25) a step
    "onset_weight", "cycle_weight", "activity_weight", "pause_cost", "tempo_spread", "first_spread", "typical_s",
    "final_lag_s", "announce_margin", "announce_s", "withdraw_margin",
)  # fmt: skip
_STEPS = {"onset_bonus": 0.3, "activity_bias": 0.3}
_KNOBS = (*_FACTORS, *_STEPS)


def search_params(
    outputs: Sequence[NetworkOutputs],
    start: DecoderParams,
    *,
    evaluations: int,
    seed: int = 0,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
) -> tuple[DecoderParams, dict[str, Any]]:
    """Evolve settings from ``start``; a pure function of its arguments.

    Parameters
    ----------
    outputs
        Of the network, for recordings of patients it was not trained on; those without an annotated cycle are left out.
    start
        Where the search begins, and what is kept where nothing better is found.
    evaluations
        Candidates that are tried.
    seed
        Of the candidates.
    bounds
        Limits that the settings must keep.
    progress
        Called after each candidate.

    Returns
    -------
    params, figures
        The settings, and ``{"start": …, "found": …}``: the merit and its parts, of both.
    """
    annotated = [row for row in outputs if len(row.truth_s)]
    bounds = bounds or Bounds()
    random = np.random.default_rng([seed, 23])

    def score(params: DecoderParams) -> dict[str, float]:
        return _figures([(row.kind, emit(row, params)) for row in annotated], bounds)

    first = score(start)
    tried = [(first["merit"], np.zeros(len(_KNOBS)))]
    width = _WIDTH
    for begin in range(0, evaluations - 1, _BATCH):
        centre, best = _centre(tried), max(merit for merit, _ in tried)
        for _ in range(min(_BATCH, evaluations - 1 - begin)):
            place = centre + width * random.standard_normal(len(_KNOBS))
            tried.append((score(_moved(start, place))["merit"], place))
            if progress is not None:
                progress("decoders tried", len(tried), evaluations)
        width *= _WIDER if max(merit for merit, _ in tried) > best else _NARROWER
    found = _moved(start, _centre(tried)) if evaluations > 1 else start
    last = score(found)
    if last["merit"] < first["merit"]:
        found, last = start, first
    return found, {"start": first, "found": last}


def tuned_recipe(
    outputs: Sequence[NetworkOutputs], recipe: Recipe, seed: int, progress: Progress | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with the decoder settings that suit a network's outputs best, and figures of the search."""
    settings = segment_section(recipe)
    params, figures = search_params(
        outputs, decoder_params(recipe), evaluations=settings.search, seed=seed, progress=progress
    )
    section = replace(settings, decoder=params.to_dict())
    return replace(recipe, segment=section), {"evaluations": settings.search, **figures}


def _centre(tried: Sequence[tuple[float, npt.NDArray[np.float64]]]) -> npt.NDArray[np.float64]:
    best = sorted(tried, key=lambda row: -row[0])[:_PARENTS]
    return np.asarray(np.mean([place for _, place in best], axis=0))


def _moved(start: DecoderParams, place: npt.NDArray[np.float64]) -> DecoderParams:
    values = start.to_dict()
    for name, by in zip(_KNOBS, place.tolist(), strict=True):
        values[name] = values[name] * float(np.exp(0.25 * by)) if name in _FACTORS else values[name] + _STEPS[name] * by
    return DecoderParams(**{name: round(value, 3) for name, value in values.items()})


def _figures(rows: Sequence[tuple[Annotation, ScoredRecording]], bounds: Bounds) -> dict[str, float]:
    """The merit, its parts as ``kind.figure``, and the bounded figures: of audible events where there are any."""
    found: dict[str, float] = {}
    merit = 0.0
    bounded: dict[str, Any] = {}
    for kind, weights in _MERITS.items():
        chosen = [row for of, row in rows if of is kind]
        if not chosen:
            continue
        report = event_report(chosen, resamples=0)
        for name, weight in weights.items():
            value = float(report[name] or 0.0)
            found[f"{kind.name.lower()}.{name}"] = value
            merit += weight * value
        if not bounded or kind is Annotation.EVENTS:
            bounded = {name: float(report[name] or 0.0) for name in _PRICES}
    beyond = sum(price * max(0.0, bounded[name] - getattr(bounds, name)) for name, price in _PRICES.items())
    return {"merit": merit - beyond, **found, **bounded}
