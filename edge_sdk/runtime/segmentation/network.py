"""The learned segmenter: samples → incremental log-mel → step network with explicit state → decoder → cycles.

The network is stateless and shared by all streams; features, states and paths belong to one stream. Every frame is
computed once, in steps of a fixed number of frames, so that blocks of any size give the same cycles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError
from edge_sdk.events import BreathCycle
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.stepping import Stepping
from edge_sdk.runtime.engines.steps import StepNetwork, takes_many_streams
from edge_sdk.runtime.segmentation.decoder import DecodedCycle, TempoDecoder
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.outputs import (
    COLUMNS,
    OLDER_ROWS,
    OLDER_SCHEMA,
    SCHEMA,
    StepOutputs,
    join_outputs,
    read_outputs,
)
from edge_sdk.runtime.segmentation.tempi import MOST_ROWS
from edge_sdk.signal.logmel import LogMel
from edge_sdk.signal.spec import FrontEndSpec

_KIND = "stetho-segmenter"
_GOLDEN_S = 2.4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepSettings:
    """Settings of a step graph, stored in it as metadata."""

    front_end: FrontEndSpec  # log-mel without normalisation
    frames_per_step: int = 4  # feature frames
    look_ahead_frames: int = 5  # the output at output frame t describes output frame t - this
    stride: int = 2  # feature frames for each output frame
    decoder: DecoderParams = field(default_factory=DecoderParams)

    @property
    def look_ahead_s(self) -> float:
        """Seconds of audio after a moment that its output needs; half an output frame included."""
        spec = self.front_end
        frames = self.look_ahead_frames * self.stride + (self.stride - 1) / 2
        return (frames * spec.hop_samples + spec.frame_samples / 2) / spec.rate_hz

    @property
    def first_samples(self) -> int:
        """Samples of the first step, which fill its first frame too."""
        return self.front_end.frame_samples + (self.frames_per_step - 1) * self.front_end.hop_samples

    @property
    def outputs_per_step(self) -> int:
        """Output frames of one step."""
        return self.frames_per_step // self.stride

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], name: str = "segmenter.onnx") -> StepSettings:
        """Parse the metadata of a step graph.

        Raises
        ------
        BundleError
            It is no step graph, or of an unknown kind.
        """
        if properties.get("kind") != _KIND or properties.get("schema") not in (SCHEMA, OLDER_SCHEMA):
            raise BundleError(f"{name} is no segmenter that this SDK can step through; export it again")
        try:
            return cls(
                FrontEndSpec.from_dict(json.loads(properties["front_end"])),
                int(properties["frames_per_step"]),
                int(properties["look_ahead_frames"]),
                int(properties["stride"]),
                DecoderParams.from_dict(json.loads(properties.get("decoder", "{}"))),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(f"{name}: its metadata is incomplete or wrong ({error}); export it again") from error


class StepModel:
    """A step graph and its settings: stateless, shared by any number of streams and threads.

    Parameters
    ----------
    engine
        Inputs ``features [streams, stride * n, M]`` and ``state_0 …``; outputs ``sounding [streams, n, 2]``,
        ``phase [streams, n, 3]``, ``cycle [streams, n, 2]`` and ``state_0_next …``; all float32. Or those of an older
        bundle, for one stream.
    settings
        See :class:`StepSettings`; read from the graph where absent.

    Raises
    ------
    BundleError
        The graph has other inputs or outputs than these.
    """

    def __init__(self, engine: OrtEngine, settings: StepSettings | None = None) -> None:
        self.engine = engine
        self.settings = settings or StepSettings.from_properties(engine.properties)
        step = self.settings
        if step.stride < 1 or step.frames_per_step < 1 or step.frames_per_step % step.stride:
            raise BundleError("the segmenter's step is no multiple of its stride; export it again")
        count, bins = step.outputs_per_step, step.front_end.mel_bins
        if takes_many_streams(engine):
            wanted: dict[str, tuple[int, ...]] = {name: (1, count, columns) for name, columns in COLUMNS.items()}
            features: tuple[int, ...] = (1, step.frames_per_step, bins)
        else:
            wanted = {name: (1, *rows, count) for name, rows in OLDER_ROWS.items()}
            features = (1, bins, step.frames_per_step)
        self.network = StepNetwork(engine, step.frames_per_step, count, tuple(wanted), "the segmenter")
        found = self.network.shapes()
        if found["features"] != features:
            raise BundleError(
                f"the segmenter's graph takes features {list(engine.inputs['features'])}; "
                f"expected features {list(features)}: export it again"
            )
        for name, shape in wanted.items():
            if found[name] != shape:
                raise BundleError(
                    f"the segmenter's graph gives {name} {list(engine.outputs[name])}; "
                    f"expected {list(shape)}: export it again"
                )


class LearnedSegmenter(Stepping):
    """Finds respiratory cycles in a stream of samples at the network's rate; a pure function of the samples.

    Parameters
    ----------
    model
        Shared with other streams.
    params
        Of the decoder; those stored in the graph where absent.
    offline
        Run all steps of a block at once: for files. The cycles are the same, up to rounding.
    """

    def __init__(self, model: StepModel, params: DecoderParams | None = None, *, offline: bool = False) -> None:
        settings = self.settings = model.settings
        spec = self._spec = settings.front_end
        super().__init__(model.network, spec, offline=offline, single=True)
        self._count = settings.frames_per_step
        decoder = params or settings.decoder
        self._outputs_per_step = settings.outputs_per_step
        self._tick = self._count * spec.hop_samples
        self._hop = settings.stride * spec.hop_samples  # samples of an output frame
        self._decoder = TempoDecoder(self._hop / spec.rate_hz, decoder)
        self._shift = (spec.frame_samples - spec.hop_samples) // 2
        self.reset()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._spec.rate_hz

    @property
    def hop_samples(self) -> int:
        """Samples of one step; blocks of any other size are accepted too."""
        return self._tick

    @property
    def look_ahead_s(self) -> float:
        """Seconds of audio after a moment that its output needs."""
        return self.settings.look_ahead_s

    def reset(self) -> None:
        """Start over: the next sample has index 0, the next cycle too."""
        self._restart()
        self._decoder.reset()
        self._fed = 0  # feature frames given to the network
        self._index = 0
        self._last_sample = 0  # end of the last final cycle
        self._found: list[BreathCycle] = []  # not returned yet

    def accept(self, hop: Floats) -> list[BreathCycle]:
        """Take ``[n]`` samples; return what they determine, provisional and final cycles, in order."""
        self.hold(hop)
        return self.found()

    def found(self) -> list[BreathCycle]:
        """Run the steps that are due, and return the cycles that were found since the last call, in order."""
        self.run_due()
        cycles, self._found = self._found, []
        return cycles

    def finish(self, *, cut: bool = False) -> list[BreathCycle]:
        """Return the cycles of the last frames too; the open cycle ends with the audio.

        ``cut``: a gap ended the audio, so that the open cycle may have any length.
        """
        received = self._taken + self._held_size
        rest = self._rest()
        real = (self._fed + len(rest)) // self.settings.stride  # output frames
        ahead = self.settings.look_ahead_frames
        if real:
            last = rest[-1] if len(rest) else self._last_frame
            missing = max(0, (real + ahead) * self.settings.stride - self._fed - len(rest))
            padded = np.concatenate((rest, np.repeat(last[None], missing + self._count, axis=0)))
            for begin in range(0, len(rest) + missing, self._count):
                described = self._fed // self.settings.stride - ahead
                frames = padded[begin : begin + self._count]
                outputs = read_outputs(self._state.step(frames))
                self._decode(frames, outputs, real - described, received, ended=True)
        self._emit(self._decoder.finish(cut=cut), received, to_the_end=True)
        cycles, self._found = self._found, []
        return cycles

    # -- one step ------------------------------------------------------------------------------------------------------

    def _accept_outputs(self, frames: Floats, outputs: Mapping[str, Floats], stream: int) -> None:
        self._decode(frames, read_outputs(outputs, stream), self._count, self._step_end)

    @classmethod
    def _stepped_together(cls, streams: Sequence[Self], outputs: Mapping[str, Floats]) -> None:
        joined: list[tuple[int, Self]] = []
        for row, stream in enumerate(streams):
            if stream._joins(streams[0]):
                joined.append((row, stream))
            else:
                stream._stepped(outputs, row)
        frames = streams[0]._outputs_per_step
        most = max(1, MOST_ROWS // frames)
        for begin in range(0, len(joined), most):
            rows, some = zip(*joined[begin : begin + most], strict=True)
            decoders = [stream._decoder for stream in some]
            found = TempoDecoder.accept_together(decoders, frames, join_outputs(outputs, rows))
            for stream, cycles in zip(some, found, strict=True):
                stream._last_frame = stream._take_frames()[-1]
                stream._fed += stream._count
                if cycles:
                    stream._emit(cycles, stream._step_end)

    def _joins(self, other: LearnedSegmenter) -> bool:
        """Whether all outputs of the step describe frames, and its decoder goes together with that of another."""
        described = self._fed // self.settings.stride >= self.settings.look_ahead_frames
        return described and self._decoder.joins(other._decoder, self._outputs_per_step)

    def _decode(self, frames: Floats, outputs: StepOutputs, most: int, received: int, *, ended: bool = False) -> None:
        """Take what the network gave for ``[n, M]`` frames of one or several steps.

        Parameters
        ----------
        frames
            Log-mel.
        outputs
            Of the network.
        most
            So many of the output frames described by a step exist.
        received
            Samples received by the end of the first step.
        ended
            No sample comes any more.
        """
        self._last_frame = frames[-1]
        per_step, ahead = self._outputs_per_step, self.settings.look_ahead_frames
        count, begin, ends, times = len(outputs.sounding), 0, list[int](), list[int]()  # of what is decoded
        for at in range(0, count, per_step):
            missing = max(0, ahead - self._fed // self.settings.stride)  # described by no output
            self._fed += self._count
            end = at + min(per_step, most)
            if at + missing < end:
                begin = begin if ends else at + missing
                ends.append(end - begin)
                times.append(received)
            received += 0 if ended else self._tick
        if ends:
            if ends[-1] < count:
                outputs = outputs.part(begin, begin + ends[-1])
            for cycles, time in zip(self._decoder.accept_steps(outputs, ends), times, strict=True):
                if cycles:
                    self._emit(cycles, time)

    def _emit(self, decoded: list[DecodedCycle], received: int, *, to_the_end: bool = False) -> None:
        rate, last_frame = self._spec.rate_hz, self._decoder.frames
        for cycle in decoded:
            onset = max(self._sample(cycle.start), self._last_sample)
            end = received if to_the_end and cycle.end == last_frame else self._sample(cycle.end)
            end = max(onset + 1, min(end, received))
            change = None if cycle.phase_change is None else self._sample(cycle.phase_change)
            if change is not None and not onset < change < end:
                change = None
            audible = None
            if cycle.audible is not None:
                begin, stop = (min(max(self._sample(frame), onset), end) for frame in cycle.audible)
                audible = (begin, stop) if begin < stop else None
            self._found.append(
                BreathCycle(self._index, onset, end, rate, cycle.final, received, cycle.confidence, change, audible)
            )
            if cycle.final:
                self._index += 1
                self._last_sample = end

    def _sample(self, frame: int) -> int:
        """First sample that output frame ``frame`` stands for; frame 0 begins with sample 0."""
        return 0 if frame == 0 else frame * self._hop + self._shift


def golden_outputs(model: StepModel) -> list[float]:
    """Outputs of the last step for a fixed synthetic signal; a bundle is verified with them."""
    spec = model.settings.front_end
    time_s = np.arange(round(_GOLDEN_S * spec.rate_hz)) / spec.rate_hz
    # Noise from integer arithmetic: the same bits with every version of numpy.
    noise = ((np.arange(time_s.size, dtype=np.int64) * 1_103_515_245 + 12_345) >> 4) % 65_536 / 65_536 - 0.5
    signal = 0.05 * noise * (1.0 + np.sin(2 * np.pi * 0.8 * time_s)) + 0.01 * np.sin(2 * np.pi * 60 * time_s)
    frames = LogMel(spec).accept(signal.astype(np.float32))
    state, count = model.network.state(), model.settings.frames_per_step
    for begin in range(0, len(frames) - count + 1, count):
        state.step(frames[begin : begin + count])
    outputs = read_outputs(state.outputs)
    rows = (*outputs.sounding.T, outputs.phase[:, 0], *outputs.cycle.T)
    return [round(float(value), 6) for row in rows for value in row]
