"""Overlapping frames of a signal as a view, and arithmetic on them in one thread.

OpenBLAS starts its threads for products beyond a certain size. They save nothing here and then spin for a while on the
cores that others need: a stream takes twice the CPU time.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float32]

_ONE_THREAD = 1 << 18  # multiplications of a product up to which OpenBLAS starts no threads, which would spin


def rows_of_product(matrix: Samples) -> int:
    """Frames that a product with the matrix takes at once; 0: it is too large for one."""
    return _ONE_THREAD // matrix.size


def frame_product(frames: Samples, matrix: Samples) -> Samples:
    """``frames @ matrix`` of a :func:`frame_view`, in parts that numpy computes in one thread: ``[k, m]``.

    The last bits depend on the number of frames.
    """
    rows = max(1, rows_of_product(matrix))
    if len(frames) <= rows:  # copied, since BLAS takes no rows that overlap
        return np.ascontiguousarray(frames) @ matrix
    found = np.empty((len(frames), matrix.shape[1]), dtype=np.float32)
    for begin in range(0, len(frames), rows):
        np.matmul(np.ascontiguousarray(frames[begin : begin + rows]), matrix, out=found[begin : begin + rows])
    return found


def sum_of_squares(samples: npt.NDArray[np.floating[Any]]) -> float:
    """Sum of the squares of ``[n]`` samples; ``dot`` would start threads for more than 10 000."""
    return float(np.einsum("i,i->", samples, samples))


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
