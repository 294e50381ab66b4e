"""One-to-one matching of found events to true ones: as many pairs as there can be, never greedily fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Pairs: TypeAlias = list[tuple[int, int]]
"""(true, found) indices, in the order of the true events."""

_FRAME_S = 0.01  # of the frame F1
_ROUNDING_S = 1e-9  # of sums of times


def as_spans(spans: npt.ArrayLike) -> Floats:
    """``[n, 2]`` float64 of begin and end in seconds; an empty list is ``[0, 2]``.

    Raises
    ------
    ValueError
        Another shape, values that are not finite, or an end before its begin.
    """
    array = np.asarray(spans, dtype=np.float64)
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"events must be [n, 2] begins and ends, got shape {list(array.shape)}")
    if not np.isfinite(array).all() or (array[:, 1] < array[:, 0]).any():
        raise ValueError("events must have finite times and end no earlier than they begin")
    return array


def iou(truth: npt.ArrayLike, found: npt.ArrayLike) -> Floats:
    """Intersection over union of every true and every found span, ``[n, m]``; 0 for spans that do not meet."""
    true, other = as_spans(truth), as_spans(found)
    begin = np.maximum(true[:, None, 0], other[None, :, 0])
    end = np.minimum(true[:, None, 1], other[None, :, 1])
    shared = np.maximum(0.0, end - begin)
    union = np.diff(true, axis=1) + np.diff(other, axis=1).T - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def match(allowed: npt.NDArray[np.bool_], preference: Floats) -> Pairs:
    """A maximum one-to-one matching of a bipartite graph (augmenting paths), tried in order of preference.

    Parameters
    ----------
    allowed
        ``[n, m]``: which pairs may be made.
    preference
        ``[n, m]``: of several maximum matchings, one with higher values is preferred.
    """
    order = [[int(j) for j in np.argsort(-preference[i], kind="stable") if allowed[i, j]] for i in range(len(allowed))]
    owner: dict[int, int] = {}  # found → true
    # The surest pairs first: where nothing competes, they are kept.
    best = [max((preference[i, j] for j in choices), default=-np.inf) for i, choices in enumerate(order)]
    for i in sorted(range(len(order)), key=lambda i: -best[i]):
        _augment(i, order, owner, set())
    return sorted((i, j) for j, i in owner.items())


def _augment(i: int, order: Sequence[Sequence[int]], owner: dict[int, int], visited: set[int]) -> bool:
    for j in order[i]:
        if j in visited:
            continue
        visited.add(j)
        if j not in owner or _augment(owner[j], order, owner, visited):
            owner[j] = i
            return True
    return False


def match_spans(truth: npt.ArrayLike, found: npt.ArrayLike, least_iou: float = 0.5) -> Pairs:
    """Pairs of spans ``[n, 2]``, ``[m, 2]`` with an intersection over union of at least ``least_iou``."""
    overlap = iou(truth, found)
    return match((overlap >= least_iou) & (overlap > 0), overlap)


def match_onsets(truth: npt.ArrayLike, found: npt.ArrayLike, collar_s: float) -> Pairs:
    """Pairs of onsets ``[n]``, ``[m]`` in seconds that lie within ``collar_s`` of each other."""
    true, other = (np.asarray(t, dtype=np.float64).reshape(-1) for t in (truth, found))
    distance = np.abs(true[:, None] - other[None, :])
    return match(distance <= collar_s, -distance)


def match_collar(
    truth: npt.ArrayLike, found: npt.ArrayLike, collar_s: float = 0.2, share_of_length: float = 0.5
) -> Pairs:
    """Pairs of spans ``[n, 2]``, ``[m, 2]`` as sed_eval defines them.

    The onset is within the collar, the end within the collar or a share of the true length; times in seconds.
    """
    true, other = as_spans(truth), as_spans(found)
    begin = np.abs(true[:, None, 0] - other[None, :, 0])
    end = np.abs(true[:, None, 1] - other[None, :, 1])
    allowance = np.maximum(collar_s, share_of_length * np.diff(true, axis=1))  # [n, 1]
    return match((begin <= collar_s) & (end <= allowance), -(begin + end))


def match_shifted(truth: npt.ArrayLike, found: npt.ArrayLike, shifts_s: npt.ArrayLike, least_iou: float = 0.5) -> int:
    """Most pairs of spans ``[n, 2]``, ``[m, 2]`` that :func:`match_spans` finds after one of the constant shifts.

    Parameters
    ----------
    truth, found
        Begins and ends in seconds.
    shifts_s
        ``[k]`` seconds that are added to all the found times, one shift at a time.
    least_iou
        As for :func:`match_spans`.
    """
    true, other = as_spans(truth), as_spans(found)
    tried: list[tuple[int, int, npt.NDArray[np.bool_], Floats]] = []
    for shift in np.asarray(shifts_s, dtype=np.float64).reshape(-1):
        overlap = iou(true, other + shift)
        allowed = (overlap >= least_iou) & (overlap > 0)
        tried.append(
            (min(int(allowed.any(axis=0).sum()), int(allowed.any(axis=1).sum())), len(tried), allowed, overlap)
        )
    most = 0
    # No matching has more pairs than either side has candidates, so most shifts need none.
    for bound, _, allowed, overlap in sorted(tried, key=lambda row: (-row[0], row[1])):
        if bound <= most:
            break
        most = max(most, len(match(allowed, overlap)))
    return most


def covering(truth: Floats, found: Floats) -> list[int | None]:
    """For each true event ``[n, 2]`` the found one ``[m, 2]`` that covers most of it; None: none covers half of it."""
    if not len(found):
        return [None] * len(truth)
    begin = np.maximum(truth[:, None, 0], found[None, :, 0])
    shared = np.minimum(truth[:, None, 1], found[None, :, 1]) - begin
    enough = 2 * shared.max(axis=1) >= truth[:, 1] - truth[:, 0] - _ROUNDING_S
    return [int(j) if there else None for j, there in zip(shared.argmax(axis=1), enough, strict=True)]


def f1(matched: float, n_true: float, n_found: float) -> float:
    """``2 TP / (n_true + n_found)``; NaN where both sides are empty."""
    return 2.0 * matched / (n_true + n_found) if n_true + n_found else float("nan")


def frame_f1(rows: Sequence[tuple[Floats, Floats, float]], frame_s: float = _FRAME_S) -> float:
    """F1 of frames that lie in an event; each row is (true ``[n, 2]``, found ``[m, 2]``, duration in s)."""
    both = true_frames = found_frames = 0
    for truth, found, duration_s in rows:
        masks = [_frames_in(as_spans(spans), duration_s, frame_s) for spans in (truth, found)]
        both += int((masks[0] & masks[1]).sum())
        true_frames += int(masks[0].sum())
        found_frames += int(masks[1].sum())
    return f1(both, true_frames, found_frames)


def _frames_in(spans: Floats, duration_s: float, frame_s: float) -> npt.NDArray[np.bool_]:
    centres = (np.arange(round(duration_s / frame_s)) + 0.5) * frame_s
    inside = np.zeros(len(centres), dtype=np.bool_)
    for begin, end in spans:
        inside[np.searchsorted(centres, begin) : np.searchsorted(centres, end)] = True
    return inside
