"""Torch → ONNX: a front-end graph, a network graph, and the two joined to ``pcm → logits``."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import onnx
import onnx.compose
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from edge_sdk.errors import ExportError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.lint import MAX_IR, lint
from export.onnx.quantise import strip_initializer_info

OPSET = 18
"""Loads in ONNX Runtime 1.19 (Python 3.8) and later, and in TensorRT from 10."""

MAX_BYTES = 2**31 - 1
"""Of a protobuf file; a larger model would need its weights beside it."""


def export_front_end(spec: FrontEndSpec) -> onnx.ModelProto:
    """``pcm [B, window_samples]`` → ``features [B, 1, M, T]``, all in float32, from :class:`FoldedFrontEnd`."""
    return onnx.load_from_string(_front_end_graph(spec))


@lru_cache(maxsize=8)
def _front_end_graph(spec: FrontEndSpec) -> bytes:
    """Exported once in a process: it has no weights of its own, and tracing takes seconds."""
    example = torch.randn(2, spec.window_samples) * 0.1
    graph = _export(FoldedFrontEnd(spec), (example,), inputs=["pcm"], outputs=["features"])
    content: bytes = graph.SerializeToString()
    return content


def export_network(model: nn.Module, spec: FrontEndSpec, schema: MetadataSchema | None = None) -> onnx.ModelProto:
    """``features [B, 1, M, T]`` → ``logits [B, C]``; the model is put in evaluation mode.

    Parameters
    ----------
    model
        Training-only heads are not part of its ``forward`` and vanish; masks of SoftFiLM are folded.
    spec
        Fixes M and T.
    schema
        Of a model that reads metadata: its inputs follow the features, int32 ``[B]`` for each categorical field (0, and
        what is outside the vocabulary, are UNKNOWN), float32 ``[B, K]`` for ``cont`` (raw units) and ``cont_valid``.
    """
    folded = fold_masks(model)
    features = torch.randn(2, 1, spec.mel_bins, spec.frames)
    if schema is None:
        return _export(folded, (features,), inputs=["features"], outputs=["logits"])
    known = example_metadata(schema, 2).arrays()
    example = (features, *(known[name] for name in schema.inputs))
    module = _WithMetadata(folded, schema.inputs)
    return _export(module, example, inputs=["features", *schema.inputs], outputs=["logits"])


def fold_masks(model: nn.Module) -> nn.Module:
    """The network with equal logits that is exported: one that knows how folds what is constant after training."""
    fold: Callable[[], nn.Module] | None = getattr(model, "folded", None)
    return model if fold is None else fold()


def example_metadata(schema: MetadataSchema, batch: int) -> Metadata:
    """Rows that differ from each other: the vocabulary in turn, and values around the training mean."""
    rows = [
        {
            **{field: names[row % len(names)] for field, names in schema.categorical.items() if names},
            **{
                field: mean + (row % 3 - 1) * std
                for field, mean, std in zip(schema.continuous, schema.mean, schema.std, strict=True)
            },
        }
        for row in range(batch)
    ]
    return Metadata.from_arrays(schema.encode(rows))


class _WithMetadata(nn.Module):
    """Takes metadata as separate tensors, which is what a graph can have as inputs."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, features: Tensor, *values: Tensor) -> Tensor:
        tensors = dict(zip(self.names, values, strict=True))
        cont, valid = tensors.pop("cont", None), tensors.pop("cont_valid", None)
        logits: Tensor = self.network(features, Metadata(tensors, cont, valid))
        return logits


def join(
    front_end: onnx.ModelProto, network: onnx.ModelProto, metadata: dict[str, str], *, tensorrt: bool = True
) -> onnx.ModelProto:
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
    finish(model, metadata, tensorrt=tensorrt)
    return model


def finish(model: onnx.ModelProto, metadata: dict[str, str] | None = None, *, tensorrt: bool = True) -> None:
    """Write properties and check a graph that is about to be saved.

    Parameters
    ----------
    model
        Changed in place.
    metadata
        Its metadata properties; ``None`` leaves those that it has.
    tensorrt
        Whether TensorRT must take it.

    Raises
    ------
    ExportError
        Names every problem that the lint found.
    """
    if metadata is not None:
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
    model.ir_version = min(model.ir_version, MAX_IR)
    used = {node.domain for node in model.graph.node} | {""}
    versions = {o.domain: o.version for o in model.opset_import if o.domain in used}  # the merger lists some twice
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(f"the graph has {model.ByteSize() / 1e9:.1f} GB, one file may have 2; choose a smaller size")
    onnx.checker.check_model(model, full_check=True)
    problems = lint(model, tensorrt=tensorrt)
    if problems:
        raise ExportError("the exported graph is not portable: " + "; ".join(problems))


def _align(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """``first`` with the IR version of ``second``: the merger insists on equal ones."""
    aligned = onnx.ModelProto()
    aligned.CopyFrom(first)
    aligned.ir_version = second.ir_version
    return aligned


def _export(
    module: nn.Module, example: tuple[Tensor, ...], *, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes: Any = tuple({0: batch} for _ in inputs)
    if isinstance(module, _WithMetadata):  # its second parameter takes all the rest
        shapes = (shapes[0], shapes[1:])
    return run_exporter(module, example, inputs=inputs, outputs=outputs, dynamic_shapes=shapes)


def run_exporter(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Any = None,
) -> onnx.ModelProto:
    """Torch's dynamo exporter, quiet, at our opset, with nodes that bear the names of their modules.

    Parameters
    ----------
    module
        Is put into evaluation mode.
    example
        Its inputs.
    inputs, outputs
        Names in the graph.
    dynamic_shapes
        As torch takes them; all sizes are fixed where absent.

    Raises
    ------
    ExportError
        Torch cannot export it, or wrote another opset.
    """
    module = module.eval()
    with warnings.catch_warnings(), _quiet_exporter(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
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
        # The exporter only logs when it cannot convert, and hands back another opset.
        raise ExportError(f"asked the exporter for opset {OPSET}, it wrote {written}")
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
    """It tells of each torchvision operator that is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Put the module's path before each node's name: lint, sensitivity search and TensorRT's logs speak of both."""
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
