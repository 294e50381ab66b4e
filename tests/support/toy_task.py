"""A regression of a few weights as a task of the training loop; also a script: one process of a parallel run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.loop.sam import SAM
from edge_sdk.training.recipes.objective_settings import OptimiserSection, SamSection
from edge_sdk.training.recipes.recipe import FitSection

FIT = FitSection(epochs=3, batch=8, learning_rate=1e-2, weight_decay=1e-2, ema_decay=0.0, clip_norm=1.0)
OPTIMISERS = {
    "adamw": OptimiserSection(schedule="constant"),
    "sgd": OptimiserSection(kind="sgd", schedule="constant"),
    "sam": OptimiserSection(schedule="constant", sam=SamSection(rho=0.1)),
}


class ToyTask:
    """Learns a random linear map; one example is ``x [5]`` and ``y [2]``."""

    steps_per_epoch = 4

    def __init__(self, spoil: int | None = None, scores: Sequence[float] = ()) -> None:
        self.drawn = 0
        self._spoil = spoil  # the batch whose targets are not numbers, counted from 0
        self._scores = list(scores)  # results of validation, epoch by epoch

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))

    def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> dict[str, Tensor]:
        x = torch.from_numpy(numpy_random.normal(size=(count, 5))).float()
        y = x[:, :2] - 2.0 * x[:, 2:4] + 0.1 * random.normal(count, 2)
        if self.drawn == self._spoil:
            y[0, 0] = float("nan")
        self.drawn += 1
        return {"x": x, "y": y}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return (model(batch["x"]) - batch["y"]).pow(2).mean()

    def validate(self, model: nn.Module) -> float | None:
        return self._scores.pop(0) if self._scores else None

    def identity(self) -> dict[str, Any]:
        return {"toy": 1}

    def sources(self, batch: dict[str, Tensor]) -> Sequence[str]:
        return ["toy-7", "toy-3"]


def train_all(folder: Path) -> None:
    """Train with every optimiser; the first process writes the weights."""
    for name, optimiser in OPTIMISERS.items():
        trainer = Trainer(FIT, optimiser, ToyTask(), seed=1)
        trainer.run(folder / f"{name}-state.pt")
        torch.save(trainer.model.state_dict(), folder / f"{name}-rank{trainer.machine.rank}.pt")


def skip_together(folder: Path) -> None:
    """The first process's first gradient is no number; each writes which of two steps of SAM it took, and weights."""
    weight, rank = nn.Parameter(torch.ones(2)), torch.distributed.get_rank()
    sam = SAM(torch.optim.SGD([weight], lr=0.1), 0.1)
    taken, weights = [], []
    for bad in (True, False):
        for step in (sam.first_step, sam.second_step):
            weight.grad = torch.full((2,), float("nan") if bad and rank == 0 and not sam.perturbed else 1.0)
            done = step()
        taken.append(done)
        weights.append(weight.tolist())
    row = {"taken": taken, "weights": weights, "skipped": sam.skipped}
    (folder / f"skip-rank{rank}.json").write_text(json.dumps(row))


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_all(Path(sys.argv[1]))
    skip_together(Path(sys.argv[1]))
    torch.distributed.barrier()
    os._exit(0)  # torch's store may abort an interpreter that winds down after its peer
