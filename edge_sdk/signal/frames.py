"""Overlapping frames of a signal as a view: nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def frame_view(samples: npt.NDArray[Any], size: int, hop: int = 1) -> npt.NDArray[Any]:
    """Every whole frame of ``[n]`` contiguous samples: ``[k, size]``, k = 1 + (n - size) // hop.

    Read only: the frames share memory. ``numpy.lib.stride_tricks.sliding_window_view`` gives the same, but its checks
    take longer than the arithmetic on a block of 20 ms.

    Raises
    ------
    ValueError
        The samples are not one contiguous row, or fewer than ``size``.
    """
    if samples.ndim != 1 or samples.size < size or not samples.flags.c_contiguous:
        raise ValueError(f"frames of {size} samples need at least as many, contiguous; got {samples.shape}")
    step = samples.itemsize
    count = 1 + (samples.size - size) // hop
    return np.ndarray((count, size), samples.dtype, samples, 0, (hop * step, step))
