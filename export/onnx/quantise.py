"""Post-training int8 of a ``features → logits`` graph with ONNX Runtime's quantiser, and the choice of its layers."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from edge_sdk.errors import ExportError

_log = logging.getLogger(__name__)

Scheme = Literal["dynamic", "static-u8s8", "static-s8"]
"""``dynamic``: linear layers, ranges of activations measured at run time. ``static-u8s8``: convolutions, for CPUs.
``static-s8``: both, symmetric and with float bias, for TensorRT.

The schemes for CPUs use 7 of a weight's 8 bits. x86-64 without VNNI adds pairs of U8 x S8 products in 16 bits, which
hold 255 * 64 * 2 but not 255 * 127 * 2: there ONNX Runtime's sums would be wrong or, with the exact kernels that the
engine asks for, take up to half as long again.
"""

Feed: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""One batch of the network's inputs by name."""

_TAKEN: dict[Scheme, tuple[str, ...]] = {
    "dynamic": ("MatMul", "Gemm"),
    "static-u8s8": ("Conv", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Relu", "Clip"),
    "static-s8": ("Conv", "MatMul", "Gemm"),
}
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_PERCENTILE_ELEMENTS = 2_000_000  # weights; percentile keeps every activation of a batch, minmax two numbers per tensor


def cpu_scheme(model: onnx.ModelProto) -> Scheme:
    """Best scheme for a graph on a CPU: ``dynamic`` where most weights are in linear layers, else ``static-u8s8``."""
    convolutions = {n.name for n in model.graph.node if n.op_type == "Conv"}
    weights = _weights(model)
    convolved = sum(size for name, (_, size) in weights.items() if name in convolutions)
    return "dynamic" if sum(size for _, size in weights.values()) > 2 * convolved else "static-u8s8"


def quantisable(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """Names of the nodes with constant weights that a scheme quantises; the head stays float."""
    found = _weights(model)
    taken = {n.name for n in model.graph.node if n.op_type in _TAKEN[scheme]} - {_head(model)}
    return [name for name in found if name in taken]


def _weights(model: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """Node → its constant weight and number of elements; batches of matrices are left out, no kernel takes them."""
    tensors = {t.name: t for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        weight = tensors.get(node.input[1]) if node.op_type in _WEIGHTED else None
        if weight is not None and (len(weight.dims) == 2 or (node.op_type == "Conv" and len(weight.dims) > 2)):
            found[str(node.name)] = (str(weight.name), int(np.prod(weight.dims)))
    return found


def _head(model: onnx.ModelProto) -> str:
    """The last node with weights before the output; it stays float."""
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting = [model.graph.output[0].name]
    while waiting:
        node = makers.get(waiting.pop(0))
        if node is None:
            continue
        if node.op_type in _WEIGHTED:
            return str(node.name)
        waiting.extend(node.input)
    return ""


@dataclass(frozen=True, slots=True)
class Int8Count:
    """Counts that prove that a graph is quantised."""

    weights: int  # int8 initialisers of two or more axes
    elements: int  # of those initialisers
    share: float  # of the elements of all initialisers of two or more axes
    bytes: int  # of the graph

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Int8Count:
        """Count the initialisers of a graph."""
        tensors = [t for t in model.graph.initializer if len(t.dims) >= 2]
        eight = [t for t in tensors if t.data_type in (TensorProto.INT8, TensorProto.UINT8)]
        total = sum(int(np.prod(t.dims)) for t in tensors)
        elements = sum(int(np.prod(t.dims)) for t in eight)
        return cls(len(eight), elements, elements / total if total else 0.0, model.ByteSize())


class Quantiser:
    """Quantises one graph any number of times; a context manager because of its temporary files.

    Parameters
    ----------
    model
        fp32 graph, first input ``features`` ``[B, 1, M, T]``.
    scheme
        See :data:`Scheme`.
    calibration
        Batches of training patients; not needed by ``dynamic``.
    method
        Calibration: ``percentile`` clips outliers, ``minmax`` keeps them. None: ``percentile`` for small CNNs, else
        ``minmax``, whose memory does not grow with the number of cycles.

    Raises
    ------
    ExportError
        No calibration batches, or no layer that the scheme can quantise.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        scheme: Scheme,
        calibration: Sequence[Feed] = (),
        *,
        method: Literal["percentile", "minmax"] | None = None,
    ) -> None:
        if scheme != "dynamic" and not calibration:
            raise ExportError("int8 needs calibration cycles: pass --corpus and --root of the training data")
        self.scheme, self._calibration = scheme, calibration
        self._folder = tempfile.TemporaryDirectory()
        self._source = self._prepare(model)
        prepared = onnx.load(self._source)
        self.layers = quantisable(prepared, scheme)
        if not self.layers:
            self._folder.cleanup()
            raise ExportError(f"the graph has no layer that {scheme} int8 can quantise; export onnx-fp32 or onnx-fp16")
        self._weights = _weights(prepared)
        self._others = [n.name for n in prepared.graph.node if n.op_type in _WEIGHTED and n.name not in self.layers]
        small = sum(int(np.prod(t.dims)) for t in prepared.graph.initializer) < _PERCENTILE_ELEMENTS
        self._method = method or ("percentile" if small and scheme == "static-u8s8" else "minmax")

    def __enter__(self) -> Quantiser:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def quantise(self, keep_float: Collection[str] = ()) -> onnx.ModelProto:
        """The graph with all :attr:`layers` in int8 except ``keep_float``.

        Raises
        ------
        ExportError
            ONNX Runtime left more layers in float than ``keep_float``.
        """
        target = Path(self._folder.name) / "target.onnx"
        left = [*self._others, *keep_float]
        excluded = [*left, *(f"{name}_MatMul" for name in left)]  # name after the dynamic quantiser converts a Gemm
        # the calibrator prints, and --json needs stdout; the quantiser warns about deliberate settings
        with contextlib.redirect_stdout(io.StringIO()), _without_warnings():
            if self.scheme == "dynamic":
                self._dynamic(target, excluded)
            else:
                self._static(target, excluded)
        quantised = onnx.load(target)
        wanted = dict(self._weights[name] for name in set(self.layers) - set(keep_float))  # weights may be shared
        count = Int8Count.of(quantised)
        if count.weights < len(wanted) or count.elements < sum(wanted.values()):
            raise ExportError(
                f"of {len(wanted)} layers, quantisation left {len(wanted) - count.weights} in float without a warning; "
                "export onnx-fp32, or report this with your onnxruntime version"
            )
        _log.debug("%d layers in int8, %.0f %% of all weights", count.weights, 100 * count.share)
        return strip_initializer_info(quantised)

    def _prepare(self, model: onnx.ModelProto) -> Path:
        source = Path(self._folder.name) / "source.onnx"
        onnx.save(strip_initializer_info(model), source)
        if self.scheme != "static-u8s8":
            return source  # pre-processing turns a linear layer into Reshape, Gemm, Reshape
        from edge_sdk.runtime.engines.library import onnxruntime_part

        shape_inference = onnxruntime_part("quantization.shape_inference")
        ready = source.with_name("ready.onnx")
        shape_inference.quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        return ready

    def _dynamic(self, target: Path, excluded: list[str]) -> None:
        from edge_sdk.runtime.engines.library import onnxruntime_part

        quantization = onnxruntime_part("quantization")
        quantization.quantize_dynamic(
            str(self._source),
            str(target),
            op_types_to_quantize=list(_TAKEN["dynamic"]),
            nodes_to_exclude=excluded,
            per_channel=True,
            reduce_range=True,  # see Scheme
            weight_type=quantization.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )

    def _static(self, target: Path, excluded: list[str]) -> None:
        from edge_sdk.runtime.engines.library import onnxruntime_part

        quantization = onnxruntime_part("quantization")
        methods, kind = quantization.CalibrationMethod, quantization.QuantType
        method = {"percentile": methods.Percentile, "minmax": methods.MinMax}[self._method]
        options: dict[str, Any] = {"CalibMaxIntermediateOutputs": 64, "CalibPercentile": 99.999}
        symmetric = self.scheme == "static-s8"
        if symmetric:
            options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
            options |= {"MatMulConstBOnly": True}
        cache: dict[str, Any] = {}
        if "calibration_cache_path" in inspect.signature(quantization.quantize_static).parameters:
            cache["calibration_cache_path"] = str(Path(self._folder.name) / "ranges.json")
        quantization.quantize_static(
            str(self._source),
            str(target),
            _Batches(self._calibration),  # type: ignore[no-untyped-call]
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_TAKEN[self.scheme]),
            nodes_to_exclude=excluded,
            per_channel=True,
            reduce_range=not symmetric,
            activation_type=kind.QInt8 if symmetric else kind.QUInt8,
            weight_type=kind.QInt8,
            calibrate_method=method,
            extra_options=options,
            **cache,
        )


def strip_initializer_info(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop value_info of initializers, whose stale shapes break ONNX Runtime's quantiser after a dynamo export."""
    names = {t.name for t in model.graph.initializer}
    kept = [v for v in model.graph.value_info if v.name not in names]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(kept)
    return result


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Drop warnings that are logged to the root logger itself."""

    def louder(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    root = logging.getLogger()
    root.addFilter(louder)
    try:
        yield
    finally:
        root.removeFilter(louder)


class _Batches:
    """The data reader of ONNX Runtime's calibrator."""

    def __init__(self, batches: Sequence[Feed]) -> None:
        self._iterator: Iterator[Feed] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._iterator, None)
        return None if batch is None else dict(batch)
