"""Step graphs are written node by node: symbolic lengths, explicit states, and as few nodes as there can be.

In a step of a few frames each node costs as much as its arithmetic, while a file is run in one go; torch's exporter
writes neither graphs of any length with a GRU nor short ones. Tests keep the graphs equal to torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edge_sdk.models.segmenter import CausalMean
from edge_sdk.runtime.engines.steps import FRAMES, OUTPUTS
from export.onnx.lint import MAX_IR, OPSET

_END = 2**62  # of a slice: the end of the axis


class StepGraph:
    """Collects the nodes of a graph whose states are inputs ``state_i`` and outputs ``state_i_next``.

    Parameters
    ----------
    mel_bins
        Rows of the input ``features [1, M, frames]``.
    """

    def __init__(self, mel_bins: int) -> None:
        self._inputs = [_value("features", (1, mel_bins, FRAMES))]
        self._outputs: list[onnx.ValueInfoProto] = []
        self._following: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._bins = mel_bins

    def op(self, kind: str, *inputs: str, out: str | Sequence[str] = "", **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        outputs = [out or f"{kind}_{len(self._nodes)}"] if isinstance(out, str) else list(out)
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs[0]

    def floats(self, values: npt.ArrayLike | Tensor | None) -> str:
        """A float32 constant; none where a layer has no bias."""
        if values is None:
            return ""
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        return self._constant(np.ascontiguousarray(array, dtype=np.float32))

    def ints(self, values: npt.ArrayLike) -> str:
        """An int64 constant."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def _constant(self, array: npt.NDArray[Any]) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def state(self, shape: tuple[int, ...]) -> tuple[str, str]:
        """Add a state; returns the names of its input and of its output."""
        name = f"state_{len(self._following)}"
        self._inputs.append(_value(name, shape))
        self._following.append(_value(f"{name}_next", shape))
        return name, f"{name}_next"

    def output(self, name: str, rows: tuple[int, ...]) -> str:
        """Declare an output ``[1, *rows, outputs]``."""
        self._outputs.append(_value(name, (1, *rows, OUTPUTS)))
        return name

    def remembered(self, x: str, shape: tuple[int, ...], axis: int) -> str:
        """``x`` with a state of this shape before it; the state becomes the end of both."""
        before, following = self.state(shape)
        held = self.op("Concat", before, x, axis=axis)
        self.op("Slice", held, self.ints([-shape[axis]]), self.ints([_END]), self.ints([axis]), out=following)
        return held

    def normalised(self, mean: CausalMean, spread: CausalMean, least_variance: float) -> tuple[str, str, str]:
        """Features over their causal mean and spread; the two have one time constant.

        Returns
        -------
        own, level, spread
            ``(x - mean) / spread``, ``x`` minus the mean of all bins' means, both ``[1, M, T]``; spread ``[1, 1, T]``.
        """
        if (mean.seconds, mean.hop_s) != (spread.seconds, spread.hop_s):
            raise ValueError("step graph: mean and spread need one time constant, they share their weights' sum")
        rate = self.floats(-mean.hop_s / mean.seconds)
        zero, one, axis = self.ints([0]), self.ints([1]), self.ints([2])
        count = self.op("Squeeze", self.op("Shape", "features", start=2, end=3), zero)
        ages = self.op("Cast", self.op("Range", self.ints(0), count, self.ints(1)), to=TensorProto.FLOAT)  # [T]
        lag = self.op("Sub", self.op("Unsqueeze", ages, zero), self.op("Unsqueeze", ages, one))  # [T, T]
        none = self.floats(0.0)
        weights = self.op(
            "Where", self.op("Less", lag, none), none, self.op("Exp", self.op("Mul", lag, rate))
        )  # of frame i for the sum at frame j
        faded = self.op("Exp", self.op("Mul", self.op("Add", ages, self.floats(1.0)), rate))  # weight of the state

        def summed(x: str, rows: int) -> str:
            state, following = self.state((1, rows, 1))
            new = self.op("MatMul", x, weights) if x else self.op("ReduceSum", weights, zero, keepdims=0)
            total = self.op("Add", new, self.op("Mul", state, faded))  # [1, rows, T]
            self.op("Slice", total, self.ints([-1]), self.ints([_END]), axis, out=following)
            return total

        weight = summed("", 1)
        means = self.op("Div", summed("features", self._bins), weight)
        centred = self.op("Sub", "features", means)
        squares = self.op("ReduceMean", self.op("Mul", centred, centred), one)
        variance = self.op("Div", summed(squares, 1), weight)
        deviation = self.op("Sqrt", self.op("Add", variance, self.floats(least_variance)))
        level = self.op("Sub", "features", self.op("ReduceMean", means, one))
        return self.op("Div", centred, deviation), level, deviation

    def gru(self, x: str, gru: nn.GRU, clip: float) -> str:
        """``x [T, 1, C]`` → ``[T, 1, H]``; the gates are clipped, as torch's operator cannot."""
        of_input, of_state, *biases = (_update_first(weight) for weight in gru.all_weights[0])
        state, following = self.state((1, 1, gru.hidden_size))
        y = self.op(
            "GRU", x, self.floats(of_input[None]), self.floats(of_state[None]),
            self.floats(np.concatenate(biases)[None]), "", state,
            out=[f"gru_{len(self._nodes)}", following],
            hidden_size=gru.hidden_size, linear_before_reset=1, clip=clip,
        )  # fmt: skip
        return self.op("Squeeze", y, self.ints([1]))

    def linear(self, x: str, layer: nn.Linear) -> str:
        """``x [..., C]`` → ``[..., C']``."""
        return self.op("Add", self.op("MatMul", x, self.floats(layer.weight.T)), self.floats(layer.bias))

    def model(self, name: str, properties: dict[str, str]) -> onnx.ModelProto:
        """The graph with its metadata properties."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, [*self._outputs, *self._following], list(self._constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=MAX_IR)
        helper.set_model_props(model, properties)
        return model


def _value(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _update_first(weight: Tensor) -> npt.NDArray[np.float32]:
    """Gates in ONNX's order, update and reset; torch's is reset and update."""
    reset, update, new = np.split(weight.detach().numpy(), 3)
    return np.concatenate((update, reset, new))
