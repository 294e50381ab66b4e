"""Torch → ONNX: a front-end graph, a network graph, and the two joined to ``pcm → logits``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import onnx.compose
import torch
from torch import nn

from edge_sdk.errors import ExportError
from edge_sdk.models.frontend import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from export.lint import MAX_IR, lint
from export.quantise import strip_initializer_info

OPSET = 18
"""Loads in ONNX Runtime 1.19 (Python 3.8) and later, and in TensorRT from 10."""


def export_front_end(spec: FrontEndSpec) -> onnx.ModelProto:
    """``pcm [B, window_samples]`` → ``features [B, 1, M, T]``, all in float32, from :class:`FoldedFrontEnd`."""
    example = torch.randn(2, spec.window_samples) * 0.1
    return _export(FoldedFrontEnd(spec), (example,), inputs=["pcm"], outputs=["features"])


def export_network(model: nn.Module, spec: FrontEndSpec) -> onnx.ModelProto:
    """``features [B, 1, M, T]`` → ``logits [B, C]``; the model is put in evaluation mode."""
    example = torch.randn(2, 1, spec.mel_bins, spec.frames)
    return _export(model, (example,), inputs=["features"], outputs=["logits"])


def join(front_end: onnx.ModelProto, network: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Chain both graphs to ``pcm → logits`` and write the metadata properties.

    Raises
    ------
    ExportError
        The joined graph does not pass the checker or the lint.
    """
    prefixed = onnx.compose.add_prefix(front_end, "front_end/", rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(
        _align(prefixed, network), network, io_map=[("features", "features")], producer_name="stethoscope-edge-sdk"
    )
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    finish(model)
    return model


def finish(model: onnx.ModelProto) -> None:
    """Check a graph that is about to be written; raise :class:`ExportError` naming every problem."""
    model.ir_version = min(model.ir_version, MAX_IR)
    used = {node.domain for node in model.graph.node} | {""}
    versions = {o.domain: o.version for o in model.opset_import if o.domain in used}  # the merger lists some twice
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())
    onnx.checker.check_model(model, full_check=True)
    problems = lint(model)
    if problems:
        raise ExportError("the exported graph is not portable: " + "; ".join(problems))


def _align(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """``first`` with the IR version of ``second``: the merger insists on equal ones."""
    aligned = onnx.ModelProto()
    aligned.CopyFrom(first)
    aligned.ir_version = second.ir_version
    return aligned


def _export(
    module: nn.Module, example: tuple[torch.Tensor, ...], *, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    module = module.eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program: Any = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=({0: batch},) * len(inputs),
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)
    model = strip_initializer_info(onnx.load_from_string(buffer.getvalue()))
    written = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if written != OPSET:
        # The exporter only logs when it cannot convert, and hands back another opset.
        raise ExportError(f"asked the exporter for opset {OPSET}, it wrote {written}")
    _drop_exporter_notes(model)
    return model


def _drop_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths of the building machine, which the exporter stores on every node."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
        value.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.graph.metadata_props[:]
    model.doc_string = ""
    model.graph.doc_string = ""
