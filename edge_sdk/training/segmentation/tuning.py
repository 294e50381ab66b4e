"""Search of the decoder's settings on held-out patients: event F1 within bounds on delay and revisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from edge_sdk.metrics.events import event_report
from edge_sdk.runtime.segmentation.decoder import DecoderParams
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.segmentation.building import decoder_params, segment_section
from edge_sdk.training.segmentation.inference import NetworkOutputs, emit

_BATCH = 8  # candidates between two moves of the centre
_PARENTS = 6  # best candidates whose mean is the centre: one lucky candidate must not decide
_WIDTH, _WIDER, _NARROWER = 0.5, 1.05, 0.93


@dataclass(frozen=True)
class Bounds:
    """Limits of the shipped decoder; the search subtracts a price from F1 for what exceeds them.

    A network that was trained on fewer patients, as in a cross-validation, announces later than the one that ships:
    the bound on the delay leaves room for that.
    """

    detection_delay_p95_s: float = 0.62  # onset to announcement
    revision_rate: float = 0.09
    onset_error_p50_s: float = 0.058
    rate_mae_bpm: float = 2.0


_PRICES = {"detection_delay_p95_s": 0.5, "revision_rate": 0.8, "onset_error_p50_s": 0.2, "rate_mae_bpm": 0.01}
"""Of F1, for each unit beyond a bound."""

_FACTORS = (  # settings that are moved by factors, exp(0.25) a step
    "activity_weight", "onset_weight", "odds_cap", "shortest_s", "typical_s", "spread", "duration_weight",
    "final_lag_s", "announce_margin", "announce_s", "withdraw_margin",
)  # fmt: skip
_STEPS = {"activity_bias": 0.3, "onset_bias": 0.3, "onset_cost": 0.4, "least_confidence": 0.05}
_KNOBS = (*_FACTORS, *_STEPS)


def search_params(
    outputs: Sequence[NetworkOutputs],
    delay: int,
    spec: FrontEndSpec,
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
    delay
        Frames by which they lag behind the audio.
    spec
        Front end of the network.
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
        The settings, and ``{"start": …, "found": …}``: event F1, merit and the bounded figures of both.
    """
    annotated = [row for row in outputs if len(row.truth_s)]
    bounds = bounds or Bounds()
    random = np.random.default_rng([seed, 23])

    def score(params: DecoderParams) -> dict[str, float]:
        report = event_report([emit(row, delay, spec, params) for row in annotated], resamples=0)
        return _figures(report, bounds)

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
    outputs: Sequence[NetworkOutputs], delay: int, recipe: Recipe, seed: int, progress: Progress | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with the decoder settings that suit a network's outputs best, and figures of the search."""
    settings = segment_section(recipe)
    params, figures = search_params(
        outputs, delay, recipe.spec, decoder_params(recipe), evaluations=settings.search, seed=seed, progress=progress
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
    values["shortest_s"] = min(max(values["shortest_s"], 0.1), 1.0)
    values["least_confidence"] = min(max(values["least_confidence"], 0.0), 0.9)
    return DecoderParams(**{name: round(value, 3) for name, value in values.items()})


def _figures(report: dict[str, Any], bounds: Bounds) -> dict[str, float]:
    figures = {name: float(report[name] or 0.0) for name in _PRICES}
    beyond = sum(price * max(0.0, figures[name] - getattr(bounds, name)) for name, price in _PRICES.items())
    event_f1 = float(report["event_f1"])
    return {"event_f1": event_f1, "merit": event_f1 - beyond, **figures}
