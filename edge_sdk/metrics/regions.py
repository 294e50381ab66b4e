"""Stretches of a recording that the annotation leaves out, and those that it covers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics.matching import Floats, as_spans

GAP_CYCLES = 0.8
"""A stretch without annotation that is longer than this share of the median cycle may hold an unlabelled cycle."""

_SLACK_S = 1e-9  # rounding of sums of times


def unlabelled_gaps(truth: Floats, duration_s: float, *, ends: bool = False) -> Floats:
    """Stretches ``[k, 2]`` between annotated cycles longer than :data:`GAP_CYCLES` of the median cycle.

    ``ends``: also those before the first cycle and after the last.
    """
    if len(truth) == 0:
        return as_spans([])
    reached = np.maximum.accumulate(truth[:, 1])
    gaps = np.stack((reached[:-1], truth[1:, 0]), axis=1)
    if ends:
        gaps = np.concatenate(([[0.0, truth[0, 0]]], gaps, [[reached[-1], max(duration_s, reached[-1])]]))
    longest = GAP_CYCLES * float(np.median(truth[:, 1] - truth[:, 0]))
    return np.asarray(gaps[gaps[:, 1] - gaps[:, 0] > longest])


def annotated_regions(truth: Floats) -> Floats:
    """Annotated events ``[n, 2]``, by onset, joined over gaps shorter than one median event: regions ``[k, 2]``.

    Where a publisher marks selected events only (SPRSound), nothing is known of the audio outside the regions.
    """
    if len(truth) == 0:
        return as_spans([])
    reached = np.maximum.accumulate(truth[:, 1])
    median_s = float(np.median(truth[:, 1] - truth[:, 0]))
    breaks = np.flatnonzero(truth[1:, 0] - reached[:-1] >= median_s - _SLACK_S)
    first, last = np.append(0, breaks + 1), np.append(breaks, len(truth) - 1)
    return np.stack((truth[first, 0], reached[last]), axis=1)


def mostly_outside(found: Floats, regions: Floats) -> npt.NDArray[np.bool_]:
    """Which found events ``[m, 2]`` have less than half of their length inside the regions ``[k, 2]`` together.

    A found event that matches an annotated one at an IoU of at least 0.5 never does.
    """
    begin = np.maximum(found[:, None, 0], regions[None, :, 0])
    end = np.minimum(found[:, None, 1], regions[None, :, 1])
    inside = np.maximum(0.0, end - begin).sum(axis=1)
    return np.asarray(2 * inside < found[:, 1] - found[:, 0] - _SLACK_S)
