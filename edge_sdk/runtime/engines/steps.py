"""Stepping a recurrent graph: its states are inputs ``state_i`` and outputs ``state_i_next``, allocated once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError
from edge_sdk.runtime.engines.onnx import OrtEngine

Floats = npt.NDArray[np.float32]


STREAMS, FRAMES, OUTPUTS = "streams", "frames", "outputs"
"""Symbolic axes of a step graph: streams that step together, frames that go in, and output frames that come out."""

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


def takes_any_length(engine: OrtEngine) -> bool:
    """Whether a step graph takes any number of steps in one run; those of older bundles take one."""
    return FRAMES in engine.inputs.get("features", ())


def state_names(engine: OrtEngine, inputs: Sequence[str], outputs: Sequence[str], what: str) -> list[str]:
    """Names of a step graph's states, in order.

    Parameters
    ----------
    engine
        The graph.
    inputs, outputs
        Names that it must have beside its states.
    what
        Its name in messages.

    Raises
    ------
    BundleError
        The graph has other inputs or outputs.
    """
    found = [name for name in engine.inputs if name.startswith("state_")]
    names = sorted(found, key=lambda name: int(name.removeprefix("state_")))
    wanted = {*outputs, *(f"{name}_next" for name in names)}
    if set(engine.inputs) != {*inputs, *names} or set(engine.outputs) != wanted:
        raise BundleError(
            f"the graph of {what} takes {sorted(engine.inputs)} and gives {sorted(engine.outputs)}; expected "
            f"{', '.join(inputs)} and state_i, and {', '.join(outputs)} and state_i_next: export it again"
        )
    return names


class StepState:
    """A step graph with the state of one stream; its arrays are allocated once and reused.

    Parameters
    ----------
    engine
        Shared with other streams; all float32.
    shapes
        From :func:`step_shapes`.
    states
        From :func:`state_names`.
    outputs
        Names of the other outputs.
    """

    def __init__(
        self, engine: OrtEngine, shapes: Mapping[str, Shape], states: Sequence[str], outputs: Sequence[str]
    ) -> None:
        features = np.zeros(shapes["features"], dtype=np.float32)
        self._frames = features[0] if takes_many_streams(engine) else features[0].T  # [n, M]
        self.outputs: dict[str, Floats] = {n: np.zeros(shapes[n], dtype=np.float32) for n in outputs}
        self._states = tuple({n: np.zeros(shapes[n], dtype=np.float32) for n in states} for _ in range(2))
        self._turns = tuple(
            engine.bind(
                {"features": features, **now},
                {**self.outputs, **{f"{name}_next": array for name, array in following.items()}},
            )
            for now, following in (self._states, self._states[::-1])
        )
        self._turn = 0

    def reset(self) -> None:
        """Clear the state: the next step is the first of a stream."""
        for states in self._states:
            for array in states.values():
                array.fill(0.0)

    def step(self, frames: Floats) -> dict[str, Floats]:
        """Run ``[n, M]`` frames; the outputs stay valid until the next step."""
        self._frames[:] = frames
        self._turns[self._turn]()
        self._turn = 1 - self._turn
        return self.outputs


class RunState:
    """The same graph over any number of steps in one run: for files, where the call costs more than the arithmetic.

    Outputs equal those of :class:`StepState` up to rounding.

    Parameters
    ----------
    engine
        Shared with other streams; its graph takes any number of frames.
    shapes, states, outputs
        As of :class:`StepState`.
    """

    def __init__(
        self, engine: OrtEngine, shapes: Mapping[str, Shape], states: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self._engine, self._names = engine, tuple(outputs)
        self._by_frame = takes_many_streams(engine)
        self._first = {name: np.zeros(shapes[name], dtype=np.float32) for name in states}
        self.reset()

    def reset(self) -> None:
        """Clear the state: the next frame is the first of a stream."""
        self._states = dict(self._first)

    def step(self, frames: Floats) -> dict[str, Floats]:
        """Run ``[n, M]`` frames, n a multiple of the step's."""
        features = np.ascontiguousarray(frames if self._by_frame else frames.T)[None]
        found = self._engine.run({"features": features, **self._states})
        self._states = {name: found[f"{name}_next"] for name in self._states}
        return {name: found[name] for name in self._names}
