"""A checkpoint as the runtime's classifier: the network runs in torch, everything around it is the device's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import nn

from edge_sdk.errors import CheckpointError
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.decoding import decoder_problem
from edge_sdk.training.calibration import checkpoint_decoder
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint


class TorchEngine:
    """Front end and network of a checkpoint as an engine: ``pcm [B, window_samples]`` → ``logits [B, K]``."""

    name = "torch"
    outputs = ("logits",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._network: nn.Module = checkpoint.build()
        self._front_end = FoldedFrontEnd(checkpoint.front_end).eval()
        schema = checkpoint.metadata_schema
        self._metadata_inputs = schema.inputs if schema is not None else ()
        self.inputs = ("pcm", *self._metadata_inputs)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Logits of PCM and, for a conditioned network, of its metadata inputs."""
        metadata = {name: inputs[name] for name in self._metadata_inputs if name in inputs}
        with torch.inference_mode():
            features = self._front_end(torch.from_numpy(inputs["pcm"]))  # [B, 1, M, T]
            logits = self._network(features, Metadata.from_arrays(metadata)) if metadata else self._network(features)
        return {"logits": logits.numpy()}


class CheckpointClassifier(NamedTuple):
    """A checkpoint's classifier with its name and origin."""

    name: str  # of the model
    classifier: Classifier
    training: dict[str, Any]  # provenance, and the label scheme it was trained under


def load_checkpoint_classifier(path: Path) -> CheckpointClassifier:
    """Load a checkpoint as a classifier that runs in torch.

    Raises
    ------
    CheckpointError
        Not a usable checkpoint.
    """
    checkpoint = load_checkpoint(path)
    decoder = checkpoint_decoder(checkpoint)
    if problem := decoder_problem(decoder, checkpoint.labels):
        raise CheckpointError(f"{path}: {problem}; train again with 'stetho train'")
    classifier = Classifier(
        checkpoint.front_end, TorchEngine(checkpoint), decoder, tuple(checkpoint.labels), checkpoint.metadata_schema
    )
    training = {**checkpoint.provenance, "labels_scheme": checkpoint.recipe.get("labels_scheme", "four")}
    return CheckpointClassifier(checkpoint.model, classifier, training)
