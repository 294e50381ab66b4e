"""Stepping a recurrent graph: its states are inputs ``state_i`` and outputs ``state_i_next``, allocated once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError
from edge_sdk.runtime.engines.onnx import OrtEngine

Floats = npt.NDArray[np.float32]


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
        Shared with other streams; all shapes fixed, all float32.
    states
        From :func:`state_names`.
    outputs
        Names of the other outputs.
    """

    def __init__(self, engine: OrtEngine, states: Sequence[str], outputs: Sequence[str]) -> None:
        shapes = engine.inputs
        self._features = np.zeros(shapes["features"], dtype=np.float32)
        self.outputs: dict[str, Floats] = {n: np.zeros(engine.outputs[n], dtype=np.float32) for n in outputs}
        self._states = tuple({n: np.zeros(shapes[n], dtype=np.float32) for n in states} for _ in range(2))
        self._turns = tuple(
            engine.bind(
                {"features": self._features, **now},
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
        self._features[0] = frames.T
        self._turns[self._turn]()
        self._turn = 1 - self._turn
        return self.outputs
