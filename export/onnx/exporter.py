"""Torch's dynamo exporter: quiet, at our opset, with nodes that are named after their modules."""

from __future__ import annotations

import ast
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from edge_sdk.errors import ExportError
from export.onnx.lint import OPSET
from export.onnx.quantise import strip_initializer_info


def run_exporter(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Any = None,
) -> onnx.ModelProto:
    """Export a module at opset ``OPSET``; its nodes get the names of their modules.

    Parameters
    ----------
    module
        Put into evaluation mode.
    example
        Inputs of ``module``.
    inputs, outputs
        Names in the graph.
    dynamic_shapes
        As ``torch.onnx.export`` takes them; all sizes are fixed where absent.

    Raises
    ------
    ExportError
        Torch cannot export the module, or writes another opset.
    OSError
        No folder for temporary files.
    """
    module = module.eval()
    tempfile.gettempdir()  # torch needs it, and would name one of its own modules instead of what is missing
    with warnings.catch_warnings(), _quiet_exporter(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        try:
            program: Any = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dynamic_shapes,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # its exceptions share no base class, and it wraps Ctrl-C in them
            if _was_interrupted(error):
                raise KeyboardInterrupt from error
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ExportError(f"torch {torch.__version__} cannot export {type(module).__name__}: {first}") from error
    buffer = io.BytesIO()
    program.save(buffer)
    model = strip_initializer_info(onnx.load_from_string(buffer.getvalue()))
    written = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if written != OPSET:
        # The exporter only logs when it cannot convert, and returns another opset.
        raise ExportError(f"the exporter wrote opset {written} instead of {OPSET}")
    _name_nodes(model)
    _drop_exporter_notes(model)
    _fusable_gelu(model)
    return model


def _was_interrupted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fusable_gelu(model: onnx.ModelProto) -> None:
    """``x * (0.5 * (1 + erf))`` → ``(x * (1 + erf)) * 0.5``: the order that ONNX Runtime fuses to one Gelu.

    Unfused, five passes over the widest activations take a third of a quantised transformer's time. Exact: 0.5 is a
    power of two.
    """
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and not t.dims]
    halves = {t.name for t in floats if float(numpy_helper.to_array(t)) == 0.5}
    makers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for scaled in model.graph.node:
        half = next((name for name in scaled.input if name in halves), None)
        if scaled.op_type != "Mul" or half is None or len(readers.get(scaled.output[0], [])) != 1:
            continue
        inner = next(name for name in scaled.input if name != half)
        product = readers[scaled.output[0]][0]
        made = makers.get(inner)
        if product.op_type != "Mul" or made is None or made.op_type != "Add":
            continue
        if not any(name in makers and makers[name].op_type == "Erf" for name in made.input):
            continue
        x = next(name for name in product.input if name != scaled.output[0])
        scaled.input[:] = [x, inner]
        product.input[:] = [scaled.output[0], half]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress its warnings about torchvision operators that are not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Put the module's path before each node's name: lint, sensitivity search and TensorRT's logs use both."""
    taken: set[str] = set()
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        modules = [scope.removeprefix("network.") for scope in ast.literal_eval(scopes)[:-1]]
        path = next((scope for scope in reversed(modules) if scope not in ("", "network")), "")
        if path:
            node.name = f"{path}/{node.name}"
        if node.name in taken:
            raise ExportError(f"the exporter gave two nodes the name {node.name}; report this with your torch version")
        taken.add(node.name)


def _drop_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove stack traces and source paths of this machine, which the exporter stores on every node."""
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
