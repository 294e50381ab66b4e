"""Levels of a recording: floats beyond ±1, and channels without audio."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.audio_file.headers.chunks import HeaderError

HEADROOM = 16.0  # floats up to here are in ±1 with overshoots, beyond in the units of integers
_STILL = 2.0**-13  # a channel that moves less, 4 steps of 16 bits, is silent


def float_scale(blocks: Iterable[npt.NDArray[np.floating[Any]]]) -> tuple[float, str | None]:
    """The factor, a power of two, that brings float samples into ±1 without clipping; and what is to be said.

    Raises
    ------
    HeaderError
        Values that no recorder writes.
    """
    peak, whole = 0.0, True
    for block in blocks:
        finite = np.isfinite(block)
        peak = max(peak, float(np.max(np.abs(block), initial=0.0, where=finite)))
        if whole and peak > 1:
            whole = bool(np.all(block[finite] == np.rint(block[finite])))
    if peak <= 1.0:
        return 1.0, None
    if whole or peak > HEADROOM:
        for bits in (16, 24, 32):
            if peak <= 2.0 ** (bits - 1):
                return 2.0 ** (1 - bits), (
                    f"float samples up to {peak:.0f} are in units of {bits} bits: divided by {1 << (bits - 1)}"
                )
        raise HeaderError(f"its float samples reach {peak:.2g}, which is no audio: its samples are damaged or shifted")
    power = math.ceil(math.log2(peak))
    return (
        2.0**-power,
        f"float samples up to {peak:.2f} lie beyond ±1: divided by {1 << power}, so that none is clipped",
    )


class ChannelWatch:
    """Notices that the channel in use is silent, and whether another one is not.

    Parameters
    ----------
    channels
        Number of them.
    chosen
        The one in use from 0, or ``"mix"``.
    """

    def __init__(self, channels: int, chosen: int | Literal["mix"]) -> None:
        self._chosen = chosen
        self._alive = np.zeros(channels, bool)
        self._watching = True
        self._any = False

    def add(self, frames: npt.NDArray[np.float32]) -> None:
        """Take ``[n, channels]`` samples; costs nothing once the channel in use has audio."""
        if not self._watching or not len(frames):
            return
        self._any = True
        self._alive |= np.ptp(frames, axis=0) > _STILL
        self._watching = not bool(self._alive.all() if self._chosen == "mix" else self._alive[self._chosen])

    def note(self) -> str | None:
        """What is to be said at the end; None where there is audio."""
        if not self._watching or not self._any:
            return None
        alive, dead = np.flatnonzero(self._alive).tolist(), np.flatnonzero(~self._alive).tolist()
        if not alive:
            return "the whole recording is silent: check the microphone, its cable and its switch"
        if self._chosen == "mix":
            silent = ", ".join(str(channel) for channel in dead)
            return f"channel {silent} is silent and only lowers the mean; use --channel {alive[0]}"
        return f"channel {self._chosen} is silent, but channel {alive[0]} has audio; use --channel {alive[0]}"
