"""A breath's samples → label and calibrated probabilities, through the bundle's window, engine and decoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError
from edge_sdk.signal.padding import fit_window

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle


@dataclass(frozen=True, slots=True)
class Answer:
    """What the classifier said of one breath."""

    label: str
    probabilities: dict[str, float]  # in the order of the bundle's labels
    elapsed_ns: int  # in the engine and the decoder


def classify_cycle(bundle: Bundle, pcm: npt.NDArray[np.float32], metadata: Mapping[str, Any] | None = None) -> Answer:
    """Classify one breath, ``[n]`` samples at the front end's rate, n >= 1, with what is known of it.

    Raises
    ------
    EngineError
        The engine failed, or its answer is no number.
    """
    window = fit_window(pcm, bundle.front_end)
    known = {**(metadata or {}), "duration_s": pcm.size / bundle.front_end.rate_hz}
    before = time.perf_counter_ns()
    row = bundle.classify(window[None], [known])[0]  # [C]
    elapsed = time.perf_counter_ns() - before
    if not np.isfinite(row).all():
        raise EngineError(f"{bundle.engine.name} answered with NaN on {bundle.artefact.format}; try another artefact")
    probabilities = dict(zip(bundle.labels, row.tolist(), strict=True))
    return Answer(bundle.labels[int(bundle.decide(row[None])[0])], probabilities, elapsed)
