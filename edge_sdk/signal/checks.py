"""What a stream refuses: rates that are too low, samples that are no audio, and blocks out of order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, StreamError
from edge_sdk.events import AudioBlock
from edge_sdk.signal.frames import sum_of_squares
from edge_sdk.signal.spec import FrontEndSpec


def band_notes(front_end: FrontEndSpec, rate_hz: int) -> tuple[str, ...]:
    """What is to be said about a source's rate.

    Raises
    ------
    AudioError
        It is too low for the front end.
    """
    need, least = front_end.full_rate_hz, front_end.least_rate_hz
    if rate_hz >= need:
        return ()
    if rate_hz < least:
        raise AudioError(
            f"a sample rate of {rate_hz} Hz is too low: nothing above {rate_hz / 2:g} Hz is in the audio, and the "
            f"bundle's front end uses {front_end.low_hz:g} to {front_end.high_hz:g} Hz; record at {need:g} Hz or more "
            f"({least} Hz is the least)"
        )
    return (
        f"band-limited: nothing above {rate_hz / 2:g} Hz is in the audio, and the bundle's front end uses up to "
        f"{front_end.high_hz:g} Hz; labels are less reliable, record at {need:g} Hz or more",
    )


def checked_samples(samples: npt.NDArray[np.floating[Any]], first: int) -> npt.NDArray[np.float32]:
    """``[n]`` samples, of which the first has index ``first``, if they are audio.

    Raises
    ------
    AudioError
        Samples that are NaN or infinite, no floats, or of several channels.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise AudioError(
            f"a block must be [n] floats of one channel in ±1, got {samples.dtype} {list(samples.shape)}; "
            "choose a channel and divide integers by their full scale"
        )
    checked = samples.astype(np.float32, copy=False)
    if not math.isfinite(sum_of_squares(checked)):
        finite = np.isfinite(checked)
        if not finite.all():
            at = first + int(np.argmin(finite))
            raise AudioError(f"sample {at} is NaN or infinite; repair the source, or leave the block out as lost")
    return checked


def checked_block(block: AudioBlock, sample_rate: int, due: int | None) -> npt.NDArray[np.float32]:
    """The ``[n]`` samples of a block, if a stream can go on with them.

    Parameters
    ----------
    block
        The next one.
    sample_rate
        Hz, of the stream.
    due
        Index of the sample that is expected; None: the block is the first.

    Raises
    ------
    StreamError
        Another sample rate; time ran backwards; the block counts other lost samples than its first sample.
    AudioError
        Samples that are NaN or infinite, no floats, or of several channels.
    """
    if block.sample_rate != sample_rate:
        raise StreamError(
            f"a block at {block.sample_rate} Hz on a stream at {sample_rate} Hz; make a stream for each rate"
        )
    samples = checked_samples(block.samples, block.first_sample)
    if due is not None and block.first_sample < due:
        raise StreamError(f"time ran backwards: a block begins at sample {block.first_sample}, expected {due}")
    if due is not None and 0 < block.lost_before != block.first_sample - due:
        raise StreamError(
            f"a block says that {block.lost_before} samples were lost before it, "
            f"its first sample says {block.first_sample - due}; count both on the source's clock"
        )
    return samples
