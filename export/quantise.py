"""Post-training int8 quantisation of a CNN's ``features → logits`` graph for CPUs (static U8S8 Q/DQ)."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from edge_sdk.errors import ExportError

_log = logging.getLogger(__name__)
_QUANTISED_OPS = ["Conv", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Relu", "Clip"]


def quantise_static(
    model: onnx.ModelProto,
    calibration: Sequence[npt.NDArray[np.float32]],
    *,
    method: str = "percentile",
    keep_float: Iterable[str] = (),
) -> onnx.ModelProto:
    """Quantise convolutions and what lies between them; the linear head stays float.

    Activations are unsigned and asymmetric, weights signed and per channel: the form ONNX Runtime's CPU kernels run
    fastest. Figures behind these choices: README, "Export".

    Parameters
    ----------
    model
        fp32 graph with one input ``features`` ``[B, 1, M, T]``.
    calibration
        Batches of features of training patients, ``[b, 1, M, T]``.
    method
        ``percentile`` clips outliers of the activations, ``minmax`` keeps them, ``entropy`` balances.
    keep_float
        Names of nodes to leave in float.

    Raises
    ------
    ExportError
        There is nothing to calibrate on, or the result holds no int8 weights.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not calibration:
        raise ExportError("int8 needs calibration cycles: pass --corpus and --root of the training data")
    methods = {
        "percentile": CalibrationMethod.Percentile,
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, ready, target = (Path(folder) / n for n in ("source.onnx", "ready.onnx", "target.onnx"))
        onnx.save(strip_initializer_info(model), source)
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        chatter = io.StringIO()  # the calibrator prints, and stdout may belong to --json
        with contextlib.redirect_stdout(chatter):
            quantize_static(
                str(ready),
                str(target),
                _Batches(calibration),  # type: ignore[no-untyped-call]
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED_OPS,
                nodes_to_exclude=list(keep_float),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=methods[method],
                extra_options={"CalibMaxIntermediateOutputs": 64, "CalibPercentile": 99.999},
            )
        _log.debug("%s", chatter.getvalue())
        quantised = onnx.load(target)
    if int8_share(quantised) < 0.5:
        raise ExportError("quantisation left most weights in float: the graph holds no convolutions it can take")
    return quantised


def strip_initializer_info(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop value_info of initializers, whose stale shapes break ONNX Runtime's quantiser after a dynamo export."""
    names = {t.name for t in model.graph.initializer}
    kept = [v for v in model.graph.value_info if v.name not in names]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(kept)
    return result


def int8_share(model: onnx.ModelProto) -> float:
    """Share of the weights (elements of initializers with two or more axes) that are stored as 8-bit integers."""
    total = eight = 0
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2:
            continue
        elements = int(np.prod(tensor.dims))
        total += elements
        if tensor.data_type in (TensorProto.INT8, TensorProto.UINT8):
            eight += elements
    return eight / total if total else 0.0


class _Batches:
    """The reader ONNX Runtime's calibrator asks for; rewinds are not needed."""

    def __init__(self, batches: Sequence[npt.NDArray[np.float32]]) -> None:
        self._iterator: Iterator[npt.NDArray[np.float32]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._iterator, None)
        return None if batch is None else {"features": batch}
