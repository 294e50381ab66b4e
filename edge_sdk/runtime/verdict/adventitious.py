"""Crackles and wheezes in a stream: samples → log-mel → step network with explicit state → frames → events.

The network is stateless and shared by all streams; features and states belong to one stream. Every frame is computed
once, in steps of a fixed number of frames, so that blocks of any size give the same outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edge_sdk.errors import BundleError
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.stepping import Stepping
from edge_sdk.runtime.engines.steps import StepNetwork
from edge_sdk.settings import NonNegative, Positive, Settings
from edge_sdk.signal.spec import FrontEndSpec

KIND = "stetho-adventitious"
SOUNDS = ("crackle", "wheeze")
SCHEMA, OLDER_SCHEMA = "2", "1"
"""Of the step graph; the older one steps a single stream, and has rows where the present one has columns."""

OUTPUTS = ("frames", "attention", "clip")

_GOLDEN_S = 1.6

Floats = npt.NDArray[np.float32]
Share = Annotated[float, Meta(gt=0, lt=1)]


class SoundParams(Settings, frozen=True):
    """From probabilities of frames to events: hysteresis, one threshold to begin and a lower one to go on."""

    title: ClassVar[str] = "adventitious"

    crackle_from: Share = 0.6  # probability from which a crackle begins
    wheeze_from: Share = 0.6
    keep_share: Annotated[float, Meta(gt=0, le=1)] = 0.5  # of the threshold, down to which it goes on
    hold_s: NonNegative = 0.12  # of frames below that are bridged
    least_s: Positive = 0.08  # shorter events are not reported
    longest_s: Positive = 10.0  # then an event is closed and another begins


@dataclass(frozen=True, slots=True)
class SoundStepSettings:
    """Settings of a step graph, stored in it as metadata."""

    front_end: FrontEndSpec  # log-mel without normalisation
    frames_per_step: int  # input frames, a multiple of the stride
    stride: int  # input frames of one output frame

    @property
    def frame_s(self) -> float:
        """Seconds of one output frame."""
        return self.stride * self.front_end.hop_samples / self.front_end.rate_hz

    @property
    def step_s(self) -> float:
        """Seconds of one step."""
        return self.frames_per_step * self.front_end.hop_samples / self.front_end.rate_hz

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], name: str) -> SoundStepSettings:
        """Parse the metadata of a step graph.

        Raises
        ------
        BundleError
            It is no step graph of this kind, or incomplete.
        """
        if properties.get("kind") != KIND or properties.get("schema") not in (SCHEMA, OLDER_SCHEMA):
            raise BundleError(f"{name} is no network of crackles and wheezes that this SDK can step; export it again")
        try:
            found = cls(
                FrontEndSpec.from_dict(json.loads(properties["front_end"])),
                int(properties["frames_per_step"]),
                int(properties["stride"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(f"{name}: its metadata is incomplete or wrong ({error}); export it again") from error
        if found.stride < 1 or found.frames_per_step < 1 or found.frames_per_step % found.stride:
            raise BundleError(f"{name}: a step must be a multiple of the stride; export it again")
        return found


class SoundModel:
    """A step graph and its settings: stateless, shared by any number of streams and threads.

    Parameters
    ----------
    engine
        Inputs ``features [streams, n, M]`` and ``state_i``; outputs ``frames [streams, t, 3]`` (probabilities of
        crackle, wheeze and breathing), ``attention [streams, t, 2]``, ``clip [streams, t, 2]`` and ``state_i_next``; t
        is n over the stride. Or those of an older bundle, for one stream, with the last two axes exchanged.
    name
        Of the file, for messages.

    Raises
    ------
    BundleError
        The graph has other inputs or outputs than these.
    """

    def __init__(self, engine: OrtEngine, name: str = "adventitious.onnx") -> None:
        self.engine = engine
        self.settings = SoundStepSettings.from_properties(engine.properties, name)
        spec, frames = self.settings.front_end, self.settings.frames_per_step
        count = frames // self.settings.stride
        self.network = StepNetwork(engine, frames, count, OUTPUTS, name)
        found = self.network.shapes()
        sizes = {"features": (frames, spec.mel_bins), "frames": (count, 3), "attention": (count, 2)}
        wanted = {name: (1, *(size if self.network.by_frame else size[::-1])) for name, size in sizes.items()}
        if wrong := [key for key, shape in wanted.items() if found[key] != shape]:
            raise BundleError(f"{name}: {wrong[0]} is {found[wrong[0]]}, not {wanted[wrong[0]]}; export it again")


@dataclass(frozen=True, slots=True)
class SoundFrames:
    """Outputs of one step: ``t`` output frames from number ``first`` on, and the log-mel frames they come from."""

    first: int
    frames: Floats  # [3, t] probabilities of crackle, wheeze, breathing
    attention: Floats  # [2, t]
    clip: Floats  # [2, t]
    mel: Floats  # [n, M]
    samples: int  # received when the step was complete


class SoundRun(Stepping):
    """Steps the network over a stream of samples at its rate.

    Parameters
    ----------
    model
        Shared with other streams.
    offline
        Run all steps of a block at once: for files. The outputs are the same, up to rounding.
    """

    def __init__(self, model: SoundModel, *, offline: bool = False) -> None:
        self.settings = model.settings
        super().__init__(model.network, model.settings.front_end, offline=offline, single=False)
        self.reset()

    def reset(self) -> None:
        """Start over: the next sample is the first, and the next output frame number 0."""
        self._restart()
        self._done = 0  # output frames
        self._found: list[SoundFrames] = []  # not returned yet

    def accept(self, samples: Floats) -> list[SoundFrames]:
        """Take ``[n]`` samples; return the steps that are complete."""
        self.hold(samples)
        return self.found()

    def found(self) -> list[SoundFrames]:
        """Run the steps that are due, and return those that were computed since the last call."""
        self.run_due()
        steps, self._found = self._found, []
        return steps

    def finish(self) -> list[SoundFrames]:
        """End of the samples: return the last, shorter step, if it has an output frame."""
        rest = self._rest()
        count = len(rest) // self.settings.stride
        if not count:
            return []
        missing = self.settings.frames_per_step - len(rest)
        padded = np.concatenate((rest, np.repeat(rest[-1:], missing, axis=0)))
        (step,) = self._steps(padded, self._state.step(padded), 0, self._taken)
        frames, attention, clip = (part[:, :count] for part in (step.frames, step.attention, step.clip))
        return [
            replace(step, frames=frames, attention=attention, clip=clip, mel=step.mel[: count * self.settings.stride])
        ]

    def _accept_outputs(self, frames: Floats, outputs: Mapping[str, Floats], stream: int) -> None:
        self._found += self._steps(frames, outputs, stream, self._step_end)

    def _steps(self, mel: Floats, outputs: Mapping[str, Floats], stream: int, samples: int) -> list[SoundFrames]:
        """Steps of ``[n, M]`` frames; ``samples`` have been received by the end of the first."""
        parts = [outputs[name][stream].T if self.network.by_frame else outputs[name][stream] for name in OUTPUTS]
        size = self.settings.frames_per_step
        each = size // self.settings.stride
        steps = []
        for k in range(len(mel) // size):
            frames, attention, clip = (part[:, k * each : (k + 1) * each].copy() for part in parts)
            taken = samples + k * size * self.settings.front_end.hop_samples
            steps.append(SoundFrames(self._done, frames, attention, clip, mel[k * size : (k + 1) * size], taken))
            self._done += each
        return steps


@dataclass(frozen=True, slots=True)
class FrameEvent:
    """A sound, in output frames."""

    kind: str  # one of SOUNDS
    begin: int
    end: int  # one past the last frame
    confidence: float  # largest probability


class SoundDetector:
    """Turns probabilities of frames into events, by hysteresis; a sound is reported when it is over.

    Parameters
    ----------
    params
        Thresholds and lengths.
    frame_s
        Seconds of an output frame.
    """

    def __init__(self, params: SoundParams, frame_s: float) -> None:
        self._from = (params.crackle_from, params.wheeze_from)
        self._keep = tuple(params.keep_share * threshold for threshold in self._from)
        self._hold = round(params.hold_s / frame_s)
        self._least = max(1, round(params.least_s / frame_s))
        self._longest = max(1, round(params.longest_s / frame_s))
        self.reset()

    def reset(self) -> None:
        """Forget the open sounds."""
        self._begin: list[int | None] = [None, None]
        self._last = [0, 0]  # last frame above the lower threshold
        self._peak = [0.0, 0.0]

    def accept(self, first: int, probabilities: Floats) -> list[FrameEvent]:
        """Take ``[2, t]`` probabilities of crackle and wheeze from frame ``first`` on; return the sounds that ended."""
        events: list[FrameEvent] = []
        rows = probabilities.tolist()
        # In most steps no sound goes on and none begins:
        active = [k for k, row in enumerate(rows) if self._begin[k] is not None or max(row) >= self._from[k]]
        for frame in range(len(rows[0]) if active else 0):
            for kind in active:
                self._frame(kind, first + frame, rows[kind][frame], events)
        return events

    def finish(self) -> list[FrameEvent]:
        """Return the open sounds and forget them."""
        events: list[FrameEvent] = []
        for kind in range(len(SOUNDS)):
            self._close(kind, events)
        return events

    def _frame(self, kind: int, column: int, probability: float, events: list[FrameEvent]) -> None:
        begin = self._begin[kind]
        if begin is None:
            if probability >= self._from[kind]:
                self._begin[kind], self._last[kind], self._peak[kind] = column, column, probability
            return
        if probability >= self._keep[kind]:
            self._last[kind] = column
            self._peak[kind] = max(self._peak[kind], probability)
        if column - self._last[kind] > self._hold or column - begin + 1 >= self._longest:
            self._close(kind, events)

    def _close(self, kind: int, events: list[FrameEvent]) -> None:
        begin, end = self._begin[kind], self._last[kind] + 1
        self._begin[kind] = None
        if begin is not None and end - begin >= self._least:
            events.append(FrameEvent(SOUNDS[kind], begin, end, round(self._peak[kind], 4)))


def golden_outputs(model: SoundModel) -> list[float]:
    """Outputs of the last step of a fixed synthetic signal; a bundle is verified with them."""
    spec = model.settings.front_end
    time_s = np.arange(round(_GOLDEN_S * spec.rate_hz)) / spec.rate_hz
    # Noise from integer arithmetic: the same bits with every version of numpy.
    noise = ((np.arange(time_s.size, dtype=np.int64) * 1_103_515_245 + 12_345) >> 4) % 65_536 / 65_536 - 0.5
    signal = 0.05 * noise * (1.0 + np.sin(2 * np.pi * 0.8 * time_s)) + 0.02 * np.sin(2 * np.pi * 400 * time_s)
    steps = SoundRun(model).accept(signal.astype(np.float32))
    return [round(float(v), 6) for part in (steps[-1].frames, steps[-1].attention, steps[-1].clip) for v in part.flat]
