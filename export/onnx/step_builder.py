"""Step graphs are written node by node: symbolic lengths, explicit states, and as few nodes as there can be.

In a step of a few frames each node costs as much as its arithmetic, while a file is run in one go; torch's exporter
writes neither graphs of any length with a GRU nor short ones. Tests keep the graphs equal to torch.

Rows are ``[T, B, C]`` inside a graph, as recurrent operators take them. Convolutions have two dimensions, one of them
of size 1 where there is only time: ONNX Runtime has fast depthwise kernels for those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edge_sdk.models.segmenter import CausalMean
from edge_sdk.runtime.engines.steps import FRAMES, OUTPUTS, STREAMS
from export.onnx.lint import MAX_IR, OPSET

_END = 2**62  # of a slice: the end of the axis
STORED_AS_HALF = 2048
"""Elements from which on the weights of a layer are stored with 16 bits."""


@dataclass(frozen=True, slots=True)
class Normalised:
    """Names of what normalisation gives, ``[T, B, M]`` and the variance ``[T, B, 1]``."""

    features: str
    means: str  # causal
    own: str  # (features - means) / sqrt(variance)
    variance: str  # causal, of all bins


class StepGraph:
    """Collects the nodes of a graph whose states are inputs ``state_i`` and outputs ``state_i_next``.

    Parameters
    ----------
    mel_bins
        Columns of the input ``features [streams, frames, M]``.
    """

    def __init__(self, mel_bins: int) -> None:
        self._inputs = [_value("features", (STREAMS, FRAMES, mel_bins))]
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

    def weights(self, values: npt.ArrayLike | Tensor) -> str:
        """Weights of a trained layer, float32.

        Large ones are stored as float16, which every engine turns into float32 once, as it loads the graph.
        """
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.size < STORED_AS_HALF:
            return self.floats(array)
        half = self._constant(np.ascontiguousarray(array, dtype=np.float16))
        return self.op("Cast", half, to=TensorProto.FLOAT)

    def ints(self, values: npt.ArrayLike) -> str:
        """An int64 constant."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def _constant(self, array: npt.NDArray[Any]) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name

    def state(self, shape: Sequence[int | str]) -> tuple[str, str]:
        """Add a state; returns the names of its input and of its output."""
        name = f"state_{len(self._following)}"
        self._inputs.append(_value(name, shape))
        self._following.append(_value(f"{name}_next", shape))
        return name, f"{name}_next"

    def output(self, name: str, columns: int) -> str:
        """Declare an output ``[streams, outputs, columns]``."""
        self._outputs.append(_value(name, (STREAMS, OUTPUTS, columns)))
        return name

    def remembered(self, x: str, shape: tuple[int, ...], axis: int) -> str:
        """``x`` with a state ``[streams, *shape]`` before it; the state becomes the end of both."""
        before, following = self.state((STREAMS, *shape))
        held = self.op("Concat", before, x, axis=axis)
        self.op("Slice", held, self.ints([-shape[axis - 1]]), self.ints([_END]), self.ints([axis]), out=following)
        return held

    def normalised(self, mean: CausalMean, spread: CausalMean, least_variance: float) -> Normalised:
        """Features over their causal mean and spread; the two have one time constant."""
        if (mean.seconds, mean.hop_s) != (spread.seconds, spread.hop_s):
            raise ValueError("step graph: mean and spread need one time constant, they share their weights' sum")
        keep, bins = float(np.exp(-mean.hop_s / mean.seconds)), self._bins
        features = self.op("Transpose", "features", perm=[1, 0, 2])  # [T, B, M]
        # The sums of the bins, and with a bias of 1 the sum of the weights.
        gains = np.eye(bins + 1, bins)
        biases = np.append(np.zeros(bins), 1.0)
        totals = self._faded(features, keep, gains, biases)
        sums, weight = f"{totals}_of_bins", f"{totals}_of_weights"
        self.op("Split", totals, self.ints([bins, 1]), axis=2, out=[sums, weight])
        means = self.op("Div", sums, weight)
        centred = self.op("Sub", features, means)
        squares = self.op("ReduceSumSquare", centred, self.ints([2]))  # [T, B, 1]
        # The bias adds the least variance: its sum over that of the weights is the bias itself.
        total = self._faded(squares, keep, np.array([[1.0 / bins]]), np.array([least_variance]))
        variance = self.op("Div", total, weight)
        own = self.op("Div", centred, self.op("Sqrt", variance))
        return Normalised(features, means, own, variance)

    def _faded(self, x: str, keep: float, gains: npt.ArrayLike, biases: npt.NDArray[np.float64]) -> str:
        """Sums of ``gains @ x + biases`` that fade by ``keep`` from frame to frame, ``[T, B, H]``: a linear RNN."""
        rows = len(biases)
        state, following = self.state((1, STREAMS, rows))
        y = self.op(
            "RNN", x, self.floats(np.asarray(gains)[None]), self.floats(keep * np.eye(rows)[None]),
            self.floats(np.concatenate((biases, np.zeros(rows)))[None]), "", state,
            out=[f"rnn_{len(self._nodes)}", following],
            hidden_size=rows, activations=["LeakyRelu"], activation_alpha=[1.0],  # the identity
        )  # fmt: skip
        return self.op("Squeeze", y, self.ints([1]))

    def gru(self, x: str, gru: nn.GRU, clip: float) -> str:
        """``x [T, B, C]`` → ``[T, B, H]``; the gates are clipped, as torch's operator cannot."""
        of_input, of_state, *biases = (_update_first(weight) for weight in gru.all_weights[0])
        state, following = self.state((1, STREAMS, gru.hidden_size))
        y = self.op(
            "GRU", x, self.weights(of_input[None]), self.weights(of_state[None]),
            self.floats(np.concatenate(biases)[None]), "", state,
            out=[f"gru_{len(self._nodes)}", following],
            hidden_size=gru.hidden_size, linear_before_reset=1, clip=clip,
        )  # fmt: skip
        return self.op("Squeeze", y, self.ints([1]))

    def linear(self, x: str, layer: nn.Linear) -> str:
        """``x [..., C]`` → ``[..., C']``."""
        return self.op("Add", self.op("MatMul", x, self.weights(layer.weight.T)), self.floats(layer.bias))

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
