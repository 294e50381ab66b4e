"""Torch → ONNX: a front-end graph, a network graph, and the two joined to ``pcm → logits``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import onnx
import onnx.compose
import torch
from torch import Tensor, nn

from edge_sdk.errors import ExportError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.exporter import run_exporter
from export.onnx.lint import MAX_IR, lint
from export.portability.releases import PARSERS, release_problems

MAX_BYTES = 2**31 - 1
"""Largest protobuf file; a larger model would need a second file for its weights."""


_REQUIRED = tuple(release for release in PARSERS if release != "8.6")  # which may lack an operator of a new model


def export_front_end(spec: FrontEndSpec) -> onnx.ModelProto:
    """``pcm [B, window_samples]`` → ``features [B, 1, M, T]``, all in float32, from :class:`FoldedFrontEnd`."""
    return onnx.load_from_string(_front_end_graph(spec))


@lru_cache(maxsize=8)
def _front_end_graph(spec: FrontEndSpec) -> bytes:
    """Exported once in a process: it has no trained weights, and tracing takes seconds."""
    example = torch.randn(2, spec.window_samples) * 0.1
    graph = _export(FoldedFrontEnd(spec), (example,), inputs=["pcm"], outputs=["features"])
    content: bytes = graph.SerializeToString()
    return content


def export_network(model: nn.Module, spec: FrontEndSpec, schema: MetadataSchema | None = None) -> onnx.ModelProto:
    """``features [B, 1, M, T]`` → ``logits [B, C]``; the model is put in evaluation mode.

    Parameters
    ----------
    model
        Training-only heads are not part of its ``forward`` and are left out; masks of SoftFiLM are folded.
    spec
        Sets M and T.
    schema
        For a model that reads metadata: the inputs after the features are int32 ``[B]`` for each categorical field (0
        and indices outside the vocabulary are UNKNOWN), float32 ``[B, K]`` for ``cont`` (raw units) and ``cont_valid``.

    Raises
    ------
    ExportError
        Torch cannot export the model, or writes another opset.
    """
    folded = fold_masks(model)
    features = torch.randn(2, 1, spec.mel_bins, spec.frames)
    if schema is None:
        return _export(folded, (features,), inputs=["features"], outputs=["logits"])
    metadata = example_metadata(schema, 2).arrays()
    example = (features, *(metadata[name] for name in schema.inputs))
    module = _WithMetadata(folded, schema.inputs)
    return _export(module, example, inputs=["features", *schema.inputs], outputs=["logits"])


def fold_masks(model: nn.Module) -> nn.Module:
    """A network with equal logits whose constants after training are folded, where the model can do that."""
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
    """Takes metadata as separate tensors: a graph has no other kind of input."""

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
        New metadata properties; ``None`` keeps the present ones.
    tensorrt
        Whether TensorRT must accept the graph.

    Raises
    ------
    ExportError
        The message names every problem that the lint found.
    """
    if metadata is not None:
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, metadata)
    model.ir_version = min(model.ir_version, MAX_IR)
    used = {node.domain for node in model.graph.node} | {""}
    versions = {o.domain: o.version for o in model.opset_import if o.domain in used}  # the merger repeats some
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items())
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(f"the graph has {model.ByteSize() / 1e9:.1f} GB, one file can have 2; choose a smaller size")
    onnx.checker.check_model(model, full_check=True)
    problems = lint(model, tensorrt=tensorrt)
    if tensorrt and not problems:
        problems = [line for release in _REQUIRED for line in release_problems(model, release)]
    if problems:
        raise ExportError("the exported graph is not portable: " + "; ".join(problems))


def _align(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """``first`` with the IR version of ``second``: the merger requires equal ones."""
    aligned = onnx.ModelProto()
    aligned.CopyFrom(first)
    aligned.ir_version = second.ir_version
    return aligned


def _export(
    module: nn.Module, example: tuple[Tensor, ...], *, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes: Any = tuple({0: batch} for _ in inputs)
    if isinstance(module, _WithMetadata):  # its second parameter takes all other inputs
        shapes = (shapes[0], shapes[1:])
    return run_exporter(module, example, inputs=inputs, outputs=outputs, dynamic_shapes=shapes)
