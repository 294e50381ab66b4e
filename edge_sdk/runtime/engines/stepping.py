"""Samples of one stream → log-mel → steps of a network: what segmenter and verdict have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from edge_sdk.errors import EngineError
from edge_sdk.runtime.engines.steps import Floats, RunState, StepBatch, StepNetwork, StepState
from edge_sdk.signal.logmel import LogMel
from edge_sdk.signal.spec import FrontEndSpec

_MOST_FRAMES = 256  # in one run over many steps: more save little, and their activations raise the peak


class Stepping(ABC):
    """Steps a network over the samples of a stream; every frame is computed once, in steps of a fixed length.

    Blocks of any size give the same outputs. Steps run alone, by :meth:`run_due`, or with those of other streams, by
    :class:`StepsTogether`.

    Parameters
    ----------
    network
        Shared with other streams.
    front_end
        Of its features.
    offline
        Run many steps of a block at once: for files. The outputs are the same, up to rounding.
    single
        Of the log-mel, see :class:`~edge_sdk.signal.logmel.LogMel`.
    """

    def __init__(self, network: StepNetwork, front_end: FrontEndSpec, *, offline: bool, single: bool) -> None:
        run_state = network.run_state() if offline else None
        self.network = network
        self._most = max(1, _MOST_FRAMES // network.frames) if run_state is not None else 1  # steps in one run
        self._state: StepState | RunState = run_state or network.state()
        self._mel = LogMel(front_end, single=single)
        self._each = network.frames * front_end.hop_samples  # samples of a step
        self._first = front_end.frame_samples + (network.frames - 1) * front_end.hop_samples  # of the first one
        self._restart()

    def _restart(self) -> None:
        """The next sample is the first."""
        self._mel.reset()
        self._state.reset()
        self._held: list[Floats] = []
        self._held_size = 0
        self._needed = self._first  # samples that the next step needs
        self._taken = 0  # samples in steps that have been taken
        self._frames: Floats | None = None  # taken, not run yet
        self._step_end = 0  # samples received by the end of the first of these steps

    @property
    def joins(self) -> StepState | None:
        """The state with which a step joins those of other streams; None: it runs alone."""
        state = self._state
        return state if isinstance(state, StepState) and self.network.by_frame else None

    @property
    def due(self) -> bool:
        """Whether the samples of a step are complete."""
        return self._frames is not None or self._held_size >= self._needed

    def hold(self, samples: Floats) -> None:
        """Take ``[n]`` samples, which :meth:`run_due` or :class:`StepsTogether` compute."""
        self._held.append(samples)
        self._held_size += samples.size

    def run_due(self) -> None:
        """Run the steps whose samples are complete."""
        while self.due:
            if self._frames is None:
                self._frames = self._mel.accept(self._take())
            self._stepped(self._state.step(self._frames), 0)

    def _take(self) -> Floats:
        """Samples of the next step, or of as many as run at once."""
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        more = min((held.size - self._needed) // self._each, self._most - 1)
        end = self._needed + more * self._each
        self._step_end = self._taken + self._needed
        self._taken += end
        self._needed = self._each
        self._held, self._held_size = ([held[end:].copy()] if end < held.size else []), held.size - end
        return held[:end]

    def _rest(self) -> Floats:
        """Frames of the samples that fill no step."""
        samples = np.concatenate((*self._held, np.zeros(0, dtype=np.float32)))
        self._held, self._held_size = [], 0
        return self._mel.accept(samples)

    def _stepped(self, outputs: Mapping[str, Floats], stream: int) -> None:
        self._accept_outputs(self._take_frames(), outputs, stream)

    def _take_frames(self) -> Floats:
        """Frames of the step that has run."""
        frames, self._frames = self._frames, None
        assert frames is not None
        return frames

    @classmethod
    def _stepped_together(cls, streams: Sequence[Self], outputs: Mapping[str, Floats]) -> None:
        for row, stream in enumerate(streams):
            stream._stepped(outputs, row)

    @abstractmethod
    def _accept_outputs(self, frames: Floats, outputs: Mapping[str, Floats], stream: int) -> None:
        """Take what the network gave for ``[n, M]`` frames of one or several steps, as stream number ``stream``."""


class StepsTogether:
    """Runs the steps that are due in many streams together; belongs to one thread."""

    def __init__(self) -> None:
        self._batches: dict[int, StepBatch] = {}

    def run_due(self, streams: Sequence[Stepping]) -> None:
        """Run one step of every stream where one is due; what cannot join is left to the stream's own ``run_due``."""
        found: dict[int, list[Stepping]] = {}
        for stream in streams:
            if stream.due and stream._frames is None and stream.joins is not None:
                found.setdefault(id(stream.network), []).append(stream)
        for joined in found.values():
            most = joined[0].network.most_streams
            for begin in range(0, len(joined), most):
                self._run(joined[begin : begin + most])

    def _run(self, joined: Sequence[Stepping]) -> None:
        if len(joined) < 2:
            return
        frames = LogMel.accept_together([one._mel for one in joined], [one._take() for one in joined])
        for stream, own in zip(joined, frames, strict=True):
            stream._frames = own
        network = joined[0].network
        batch = self._batches.get(id(network)) or self._batches.setdefault(id(network), StepBatch(network))
        try:
            outputs = batch.step([one.joins for one in joined if one.joins is not None], frames)
        except EngineError:
            return  # each runs its step alone, so that only those fail that fail by themselves
        type(joined[0])._stepped_together(joined, outputs)
