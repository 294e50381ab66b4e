"""Stepping a recurrent graph: its states are inputs ``state_i`` and outputs ``state_i_next``.

A stream holds its state; a step runs for one stream, for many at once, or over a whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError
from edge_sdk.runtime.engines.onnx import OrtEngine

Floats = npt.NDArray[np.float32]

STREAMS, FRAMES, OUTPUTS = "streams", "frames", "outputs"
"""Symbolic axes of a step graph: streams that step together, frames that go in, and output frames that come out."""

MOST_STREAMS = 32
"""Streams in one run: more of them save nothing, and the first would wait for the last."""

_MOST_FRAMES = 160  # in one run: beyond, activations leave the caches and are allocated from the system page by page

Shape = tuple[int, ...]


def step_shapes(engine: OrtEngine, frames: int, outputs: int, streams: int = 1) -> dict[str, Shape]:
    """Shapes of a step graph's inputs and outputs in a step of so many frames, output frames and streams, by name."""
    sizes = {FRAMES: frames, OUTPUTS: outputs, STREAMS: streams}
    return {
        name: tuple(sizes.get(axis, axis) for axis in shape)
        for name, shape in {**engine.inputs, **engine.outputs}.items()
    }


def takes_many_streams(engine: OrtEngine) -> bool:
    """Whether a step graph takes ``features [streams, frames, M]`` and gives ``[streams, outputs, k]``.

    Those of older bundles take ``[1, M, frames]`` and give ``[1, k, outputs]``.
    """
    return STREAMS in engine.inputs.get("features", ())


def _state_names(engine: OrtEngine, outputs: Sequence[str], what: str) -> list[str]:
    """Names of a step graph's states, in order; ``BundleError`` where it has other inputs or outputs beside them."""
    found = [name for name in engine.inputs if name.startswith("state_")]
    names = sorted(found, key=lambda name: int(name.removeprefix("state_")))
    wanted = {*outputs, *(f"{name}_next" for name in names)}
    if set(engine.inputs) != {"features", *names} or set(engine.outputs) != wanted:
        raise BundleError(
            f"the graph of {what} takes {sorted(engine.inputs)} and gives {sorted(engine.outputs)}; expected "
            f"features and state_i, and {', '.join(outputs)} and state_i_next: export it again"
        )
    return names


class StepNetwork:
    """A step graph: stateless, shared by any number of streams and threads.

    Parameters
    ----------
    engine
        All float32.
    frames, count
        Frames and output frames of one step.
    outputs
        Names of the outputs beside the next states.
    what
        Its name in messages.

    Raises
    ------
    BundleError
        The graph has other inputs or outputs.
    """

    def __init__(self, engine: OrtEngine, frames: int, count: int, outputs: Sequence[str], what: str) -> None:
        self.engine, self.frames, self.count, self.outputs = engine, frames, count, tuple(outputs)
        self.states = _state_names(engine, outputs, what)
        self.by_frame = takes_many_streams(engine)
        self.any_length = FRAMES in engine.inputs["features"]
        self.most_streams = min(MOST_STREAMS, max(1, _MOST_FRAMES // frames)) if self.by_frame else 1  # in one run

    def shapes(self, streams: int = 1) -> dict[str, Shape]:
        """Shapes of inputs and outputs in a step, by name."""
        return step_shapes(self.engine, self.frames, self.count, streams)

    def state(self) -> StepState:
        """New state to step the network over one stream."""
        return StepState(self)

    def run_state(self) -> RunState | None:
        """New state to run many steps at once; None: the graph takes one step only."""
        return RunState(self) if self.any_length else None


class StepState:
    """The state of one stream; its arrays are allocated once and reused.

    Parameters
    ----------
    network
        Shared with other streams.

    Attributes
    ----------
    outputs
        Of the last step that ran alone, by name.
    """

    def __init__(self, network: StepNetwork) -> None:
        self.network = network
        shapes = network.shapes()
        sizes = [int(np.prod(shapes[name])) for name in network.states]
        self._packed = tuple(np.zeros(sum(sizes), dtype=np.float32) for _ in range(2))
        self._turn = 0
        ends = np.cumsum(sizes).tolist()
        self._states = tuple(
            {
                name: packed[end - size : end].reshape(shapes[name])
                for name, size, end in zip(network.states, sizes, ends, strict=True)
            }
            for packed in self._packed
        )
        features = np.zeros(shapes["features"], dtype=np.float32)
        self._features, self._frames = features, features[0] if network.by_frame else features[0].T  # [n, M]
        self.outputs: dict[str, Floats] = {n: np.zeros(shapes[n], dtype=np.float32) for n in network.outputs}
        self._turns: tuple[Callable[[], None], ...] = ()

    @property
    def packed(self) -> Floats:
        """All states in one row, in order: what a run of many streams reads and writes."""
        return self._packed[self._turn]

    def reset(self) -> None:
        """Clear the state: the next step is the first of a stream."""
        for packed in self._packed:
            packed.fill(0.0)

    def step(self, frames: Floats) -> dict[str, Floats]:
        """Run ``[n, M]`` frames; the outputs stay valid until the next step."""
        if not self._turns:  # bound now, since a stream among many never runs alone
            self._turns = tuple(
                self.network.engine.bind(
                    {"features": self._features, **now},
                    {**self.outputs, **{f"{name}_next": array for name, array in following.items()}},
                )
                for now, following in (self._states, self._states[::-1])
            )
        self._frames[:] = frames
        self._turns[self._turn]()
        self._turn = 1 - self._turn
        return self.outputs


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of a certain number of streams: views of the arrays of a :class:`StepBatch`, and the call."""

    call: Callable[[], None]
    packed: Floats  # [streams, values of all states]
    features: Floats
    outputs: dict[str, Floats]
    copies: tuple[tuple[Floats, Floats, Floats], ...]  # of each state: packed, before and after the run


class StepBatch:
    """Steps many streams in one run; belongs to one thread.

    Outputs equal those of :class:`StepState` alone up to rounding.

    Parameters
    ----------
    network
        That takes many streams.
    """

    def __init__(self, network: StepNetwork) -> None:
        if not network.by_frame:
            raise ValueError("this step graph is of an older bundle and takes one stream at a time")
        self._network = network
        shapes = network.shapes(network.most_streams)
        self._arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
        size = sum(int(np.prod(shape)) for name, shape in network.shapes().items() if name in network.states)
        self._packed = np.zeros((network.most_streams, size), dtype=np.float32)
        self._runs: dict[int, _Run] = {}

    def step(self, states: Sequence[StepState], frames: Floats) -> dict[str, Floats]:
        """Run ``[streams, n, M]`` frames; the outputs stay valid until the next step.

        Raises
        ------
        EngineError
            The engine failed; no state has changed.
        """
        count = len(states)
        run = self._runs.get(count) or self._runs.setdefault(count, self._bound(count))
        np.stack([state.packed for state in states], out=run.packed)
        run.features[:] = frames
        for packed, before, _ in run.copies:
            before[:] = packed
        run.call()
        for packed, _, after in run.copies:
            packed[:] = after
        for state, row in zip(states, run.packed, strict=True):
            state.packed[:] = row
        return run.outputs

    def _bound(self, count: int) -> _Run:
        network, engine, shapes = self._network, self._network.engine, self._network.shapes(count)
        declared = {**engine.inputs, **engine.outputs}
        used = {}  # the first rows of each array: contiguous, since all axes before that of the streams have size 1
        for name, array in self._arrays.items():
            axis = declared[name].index(STREAMS)
            used[name] = array[(slice(None),) * axis + (slice(count),)]
        inputs = {name: used[name] for name in engine.inputs}
        outputs = {name: used[name] for name in engine.outputs}
        copies, begin = [], 0
        packed = self._packed[:count]
        for name in network.states:
            rows = used[name].reshape(count, -1), used[f"{name}_next"].reshape(count, -1)
            copies.append((packed[:, begin : begin + rows[0].shape[1]], *rows))
            begin += rows[0].shape[1]
        assert all(array.shape == shapes[name] for name, array in used.items())
        found = {name: used[name] for name in network.outputs}
        return _Run(engine.bind(inputs, outputs), packed, used["features"], found, tuple(copies))


class RunState:
    """The same graph over any number of steps in one run: for files, where the call costs more than the arithmetic.

    Outputs equal those of :class:`StepState` up to rounding.

    Parameters
    ----------
    network
        Shared with other streams; it takes any number of frames.
    """

    def __init__(self, network: StepNetwork) -> None:
        self._network, shapes = network, network.shapes()
        self._first = {name: np.zeros(shapes[name], dtype=np.float32) for name in network.states}
        self.reset()

    def reset(self) -> None:
        """Clear the state: the next frame is the first of a stream."""
        self._states: Mapping[str, Floats] = self._first

    def step(self, frames: Floats) -> dict[str, Floats]:
        """Run ``[n, M]`` frames, n a multiple of the step's."""
        network = self._network
        features = np.ascontiguousarray(frames if network.by_frame else frames.T)[None]
        found = network.engine.run({"features": features, **self._states})
        self._states = {name: found[f"{name}_next"] for name in network.states}
        return {name: found[name] for name in network.outputs}
