"""What a segmenter's step graph gives for each output frame, in the present layout and in that of older bundles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

SCHEMA, OLDER_SCHEMA = "3", "2"
"""Of the step graph; the older one steps a single stream, and has rows where the present one has columns."""

SOUNDING = ("activity", "onset")
"""Columns of the output ``sounding``."""

COLUMNS: dict[str, int] = {"sounding": len(SOUNDING), "phase": 3, "cycle": 2}
"""Outputs ``[streams, n, columns]`` of a graph of the present schema."""

OLDER_ROWS: dict[str, tuple[int, ...]] = {"activity": (), "onset": (), "phase": (3,), "cycle": (2,)}
"""Outputs ``[1, *rows, n]`` of an older one."""

Floats: TypeAlias = npt.NDArray[np.float32]


class StepOutputs(NamedTuple):
    """Outputs of one stream; views of what the engine wrote."""

    activity: Floats  # [n] probability of audible breathing
    onset: Floats  # [n] probability of the onset of an inspiration
    phase: Floats  # [3, n] probabilities of inspiration, expiration and neither
    cycle: Floats  # [2, n] cosine and sine of the cycle's angle


def read_outputs(outputs: Mapping[str, Floats], stream: int = 0) -> StepOutputs:
    """Outputs of one stream of a run, from those of the graph by name."""
    if "sounding" in outputs:
        sounding = outputs["sounding"][stream]
        return StepOutputs(sounding[:, 0], sounding[:, 1], outputs["phase"][stream].T, outputs["cycle"][stream].T)
    return StepOutputs(*(outputs[name][stream] for name in OLDER_ROWS))
