"""What a segmenter's step graph gives for each output frame, in the present layout and in that of older bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

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
Outputs: TypeAlias = npt.NDArray[np.floating[Any]]


class StepOutputs(NamedTuple):
    """Outputs of one stream, of ``n`` output frames."""

    sounding: Outputs  # [n, 2] probabilities of audible breathing and of the onset of an inspiration
    phase: Outputs  # [n, 3] probabilities of inspiration, expiration and neither
    cycle: Outputs  # [n, 2] cosine and sine of the cycle's angle

    def part(self, begin: int, end: int) -> StepOutputs:
        """Frames ``[begin, end)`` of them."""
        return StepOutputs(self.sounding[begin:end], self.phase[begin:end], self.cycle[begin:end])


def from_rows(activity: Outputs, onset: Outputs, phase: Outputs, cycle: Outputs) -> StepOutputs:
    """Outputs given as ``[n]``, ``[n]``, ``[3, n]`` and ``[2, n]``."""
    return StepOutputs(np.stack((activity, onset), axis=1), phase.T, cycle.T)


def join_outputs(outputs: Mapping[str, Floats], streams: Sequence[int]) -> StepOutputs:
    """Outputs of some streams of a run of the present schema, one after the other."""
    return StepOutputs(*(outputs[name].take(streams, 0).reshape(-1, columns) for name, columns in COLUMNS.items()))


def read_outputs(outputs: Mapping[str, Floats], stream: int = 0) -> StepOutputs:
    """Outputs of one stream of a run, from those of the graph by name; views of what the engine wrote."""
    if "sounding" in outputs:
        return StepOutputs(outputs["sounding"][stream], outputs["phase"][stream], outputs["cycle"][stream])
    return from_rows(*(outputs[name][stream] for name in OLDER_ROWS))
