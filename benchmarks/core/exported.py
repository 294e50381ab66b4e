"""A recipe's untrained model in torch and as both of its graphs, for parity checks and engine builds."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from filelock import FileLock  # torch requires it

from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.recipe import load_recipe, recipe_names
from edge_sdk.training.untrained import untrained_checkpoint
from export.onnx.graph import example_metadata, export_front_end, export_network, join
from export.onnx.runner import GraphRunner

RECIPES = [name for name in recipe_names() if load_recipe(name).task == "classify"]
KINDS = ("features", "pcm")  # inputs of the two graphs


def randomise_zero_weights(checkpoint: Checkpoint) -> Checkpoint:
    """Replace all-zero weights (adapters, conditioning) by random ones, so that a test of the export covers them."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.ndim > 1 and not tensor.any()
        else tensor
        for name, tensor in checkpoint.state.items()
    }
    return replace(checkpoint, state=state)


class Exported:
    """Exports in ``__init__``; creates the sessions on first use.

    Parameters
    ----------
    recipe, size
        Of the model.
    kept
        A folder with the graphs that another process exported, or for it; None: nothing is kept.
    """

    def __init__(self, recipe: str, size: str, kept: Path | None = None) -> None:
        self.checkpoint = randomise_zero_weights(untrained_checkpoint(recipe, size=size))
        self.spec, self.schema = self.checkpoint.front_end, self.checkpoint.metadata_schema
        self.model = self.checkpoint.build()
        network, joined = self._graphs() if kept is None else self._kept_graphs(kept / f"{recipe}-{size}")
        self.network, self.joined = network, joined

    def _graphs(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        network = export_network(self.model, self.spec, self.schema)
        return network, join(export_front_end(self.spec), network, {})

    def _kept_graphs(self, base: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        files = base.with_suffix(".network.onnx"), base.with_suffix(".joined.onnx")
        base.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(base.with_suffix(".lock")):
            if not files[1].exists():
                for file, graph in zip(files, self._graphs(), strict=True):
                    onnx.save(graph, file)
        network, joined = (onnx.load(file) for file in files)
        return network, joined

    @cached_property
    def sessions(self) -> dict[str, GraphRunner]:
        """One for each of :data:`KINDS`."""
        return {"features": GraphRunner(self.network), "pcm": GraphRunner(self.joined)}

    def metadata(self, batch: int) -> dict[str, npt.NDArray[np.float32]]:
        """Metadata rows ``[B]`` that differ from each other; empty for a model without metadata."""
        if self.schema is None:
            return {}
        return {name: value.numpy() for name, value in example_metadata(self.schema, batch).arrays().items()}

    def noise(self, batch: int) -> npt.NDArray[np.float32]:
        """White noise, ``[B, window_samples]``."""
        generator = np.random.default_rng(batch)
        return (0.1 * generator.standard_normal((batch, self.spec.window_samples))).astype(np.float32)

    def torch_logits(self, batch: int) -> npt.NDArray[np.float32]:
        """Logits ``[B, C]`` of the torch model for :meth:`noise` and :meth:`metadata`."""
        return np.asarray(self._torch(batch)[1].numpy(), np.float32)

    @torch.no_grad()
    def _torch(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and logits."""
        features, metadata = FoldedFrontEnd(self.spec)(torch.from_numpy(self.noise(batch))), self.metadata(batch)
        return features, self.model(features, Metadata.from_arrays(metadata)) if metadata else self.model(features)

    @torch.no_grad()
    def relative_errors(self, batch: int) -> dict[str, float]:
        """``||graph - torch|| / ||torch||`` of the logits, for each graph."""
        pcm, metadata = torch.from_numpy(self.noise(batch)), self.metadata(batch)
        features, expected = self._torch(batch)
        errors = {}
        for kind, value in (("features", features), ("pcm", pcm)):
            found = self.sessions[kind].run({kind: value.numpy(), **metadata})
            if found.shape != expected.shape:
                raise ValueError(f"{kind}: logits {found.shape}, in torch {tuple(expected.shape)}")
            errors[kind] = float(np.linalg.norm(found - expected.numpy()) / np.linalg.norm(expected.numpy()))
        return errors
