"""Self-contained checkpoints: one ``torch.load(weights_only=True)`` dictionary, usable without any other file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models import build_model
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.run_folder import run_file

FORMAT = "stethoscope-edge-sdk checkpoint"
SCHEMA = 1
_KINDS = {
    "model": str, "size": str, "recipe": dict, "front_end": dict, "labels": list, "decoder": str, "bias": list,
    "state_dict": dict, "metrics": dict, "provenance": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and all that is needed to use, export or reproduce it."""

    model: str  # registry name
    size: str
    recipe: dict[str, Any]
    front_end: FrontEndSpec
    labels: tuple[str, ...]
    decoder: str  # how logits become labels: softmax, multilabel, binary
    temperature: float
    bias: tuple[float, ...]  # added to logits / temperature, one per logit
    state: dict[str, Tensor]  # the network's state_dict
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)  # see Provenance; of older files the keys may differ
    metadata: dict[str, Any] = field(default_factory=dict)  # MetadataSchema.to_dict(); empty: the network reads none

    @property
    def metadata_schema(self) -> MetadataSchema | None:
        """Metadata that the network reads; None: it reads none."""
        return MetadataSchema.from_dict(self.metadata) if self.metadata else None

    def build(self) -> nn.Module:
        """The network with its weights, in evaluation mode: ``features [B, 1, M, T] -> logits [B, C]``.

        One with metadata takes it as second argument; without it, every field is UNKNOWN.

        Raises
        ------
        CheckpointError
            The tensors do not fit the network of this name and size.
        """
        options = dict(self.recipe.get("model", {}).get("options", {}))
        try:
            if self.metadata_schema is not None:
                options["metadata_schema"] = self.metadata_schema
            classes = logit_count(self.decoder, self.labels)
            model = build_model(self.model, size=self.size, classes=classes, front_end=self.front_end, options=options)
            model.load_state_dict(self.state)
        except (RuntimeError, ValueError, RecipeError) as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"checkpoint does not fit model {self.model!r} size {self.size!r} ({first}); "
                "use the SDK version that wrote it, or train again with 'stetho train'"
            ) from error
        return model.eval()

    def build_end_to_end(self) -> nn.Module:
        """Front end and network in one: ``pcm [B, window_samples] -> logits [B, C]``, the graph that is exported."""
        return nn.Sequential(FoldedFrontEnd(self.front_end), self.build()).eval()


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically; everything but the tensors is stored as plain builtins.

    Raises
    ------
    CheckpointError
        The file could not be written; an older one of that name is intact.
    """
    content = {
        "format": FORMAT,
        "schema": SCHEMA,
        "model": checkpoint.model,
        "size": checkpoint.size,
        "recipe": _builtin(checkpoint.recipe),
        "front_end": checkpoint.front_end.to_dict(),
        "labels": list(checkpoint.labels),
        "decoder": checkpoint.decoder,
        "temperature": float(checkpoint.temperature),
        "bias": [float(value) for value in checkpoint.bias],
        "state_dict": {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.state.items()},
        "metrics": _builtin(checkpoint.metrics),
        "provenance": _builtin(checkpoint.provenance),
        "metadata": _builtin(checkpoint.metadata),
    }
    with run_file(path) as draft:
        torch.save(content, draft)


def load_checkpoint(path: Path, *, model: str | None = None) -> Checkpoint:
    """Read and check a checkpoint.

    Parameters
    ----------
    path : Path
        The file.
    model : str, optional
        Registry name that the caller needs; another one is refused.

    Raises
    ------
    CheckpointError
        Missing, unreadable, of another program, newer than this SDK, incomplete, or of another model.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; 'stetho train RECIPE --out DIR' writes one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is not a readable checkpoint; train again or copy the file anew") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by 'stetho train'; give a checkpoint of this SDK")
    _check_schema(path, content.get("schema"))
    if model is not None and content.get("model") != model:
        raise CheckpointError(
            f"{path} is a checkpoint of model {content.get('model')!r}, not {model!r}; "
            f"use --set model.name={content.get('model')} or give a checkpoint of {model!r}"
        )
    try:
        for name, kind in _KINDS.items():
            if not isinstance(content[name], kind) or (name == "labels" and not content[name]):
                raise TypeError(f"{name} is {content[name]!r}")
        return Checkpoint(
            model=content["model"],
            size=content["size"],
            recipe=content["recipe"],
            front_end=FrontEndSpec.from_dict(content["front_end"]),
            labels=tuple(content["labels"]),
            decoder=content["decoder"],
            temperature=content["temperature"],
            bias=tuple(content["bias"]),
            state=content["state_dict"],
            metrics=content["metrics"],
            provenance=content["provenance"],
            metadata=content.get("metadata", {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is incomplete ({error}); train again") from error


def _check_schema(path: Path, schema: object) -> None:
    if not isinstance(schema, int) or schema < 1:
        raise CheckpointError(f"{path} has schema {schema!r}, which no SDK writes; train again or copy the file anew")
    if schema > SCHEMA:
        raise CheckpointError(f"{path} was made by a newer SDK (schema {schema}, this SDK reads {SCHEMA}); upgrade")


def _builtin(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers: the only things that ``weights_only`` loading admits besides tensors."""
    if isinstance(value, Mapping):
        return {str(key): _builtin(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_builtin(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # their subclasses (torch's version string, numpy's float64) are not admitted
        if isinstance(value, kind):
            return kind(value)
    return value.item() if hasattr(value, "item") else str(value)
