"""A recipe's untrained model in torch and as both of its graphs: what parity and engine builds are measured on."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.training.checkpoint import Checkpoint
from edge_sdk.training.recipes.recipe import load_recipe, recipe_names
from edge_sdk.training.untrained import untrained_checkpoint
from export.onnx.graph import example_metadata, export_front_end, export_network, join
from export.onnx.session import Session

RECIPES = [name for name in recipe_names() if load_recipe(name).task == "classify"]
KINDS = ("features", "pcm")  # what the two graphs read


def waken(checkpoint: Checkpoint) -> Checkpoint:
    """What starts at zero (adapters, conditioning) must matter, or its export is not tested."""
    generator = torch.Generator().manual_seed(3)
    state = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.ndim > 1 and not tensor.any()
        else tensor
        for name, tensor in checkpoint.state.items()
    }
    return replace(checkpoint, state=state)


class Exported:
    """Exports at once; sessions are made when first used."""

    def __init__(self, recipe: str, size: str) -> None:
        self.checkpoint = waken(untrained_checkpoint(recipe, size=size))
        self.spec, self.schema = self.checkpoint.front_end, self.checkpoint.metadata_schema
        self.model = self.checkpoint.build()
        self.network = export_network(self.model, self.spec, self.schema)
        self.joined = join(export_front_end(self.spec), self.network, {})

    @cached_property
    def sessions(self) -> dict[str, Session]:
        """By what they read, see :data:`KINDS`."""
        return {"features": Session(self.network), "pcm": Session(self.joined)}

    def metadata(self, batch: int) -> dict[str, npt.NDArray[np.float32]]:
        """Rows that differ from each other; empty for a model that reads none."""
        if self.schema is None:
            return {}
        return {name: value.numpy() for name, value in example_metadata(self.schema, batch).arrays().items()}

    def sound(self, batch: int) -> npt.NDArray[np.float32]:
        """Noise ``[B, window_samples]``."""
        generator = np.random.default_rng(batch)
        return (0.1 * generator.standard_normal((batch, self.spec.window_samples))).astype(np.float32)

    @torch.no_grad()
    def relative_errors(self, batch: int) -> dict[str, float]:
        """``||graph - torch|| / ||torch||`` of the logits, for each graph."""
        pcm, known = torch.from_numpy(self.sound(batch)), self.metadata(batch)
        features = FoldedFrontEnd(self.spec)(pcm)
        expected = self.model(features, Metadata.from_arrays(known)) if known else self.model(features)
        errors = {}
        for kind, given in (("features", features), ("pcm", pcm)):
            found = self.sessions[kind].run({kind: given.numpy(), **known})
            if found.shape != expected.shape:
                raise ValueError(f"{kind}: logits {found.shape}, in torch {tuple(expected.shape)}")
            errors[kind] = float(np.linalg.norm(found - expected.numpy()) / np.linalg.norm(expected.numpy()))
        return errors
