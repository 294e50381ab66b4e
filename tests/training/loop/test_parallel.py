"""Two processes train the weights that one would; with SAM each climbs its own slope."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from edge_sdk.errors import TrainingError
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.loop.parallel import Machine, rows_of
from tests.support.toy_task import FIT, OPTIMISERS, ToyTask

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    """What two processes on gloo wrote, started as torchrun starts them."""
    folder = tmp_path_factory.mktemp("parallel")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repo_root)}
    script = repo_root / "tests" / "support" / "toy_task.py"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    complaints = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    return folder


def _trained_by(folder: Path, name: str, rank: int) -> Weights:
    weights: Weights = torch.load(folder / f"{name}-rank{rank}.pt", weights_only=True)
    return weights


def _assert_close(one: Weights, other: Weights) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_two_processes_give_the_weights_of_one_with_the_same_batch(of_two: Path, name: str) -> None:
    alone = Trainer(FIT, OPTIMISERS[name], ToyTask(), seed=1)
    _assert_close(_trained_by(of_two, name, 0), alone.run().state_dict())


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_all_processes_end_with_the_same_weights(of_two: Path, name: str) -> None:
    _assert_close(_trained_by(of_two, name, 0), _trained_by(of_two, name, 1))


def test_sam_climbs_each_process_own_slope_and_descends_the_mean(of_two: Path) -> None:
    _assert_close(_trained_by(of_two, "sam", 0), _m_sam_by_hand())


def test_processes_agree_on_skipping_a_step(of_two: Path) -> None:
    """Both leave their weights alone where the gradient of one is no number, and then both step."""
    for rank in range(2):
        row = json.loads((of_two / f"skip-rank{rank}.json").read_text())
        assert row["taken"] == [False, True] and row["skipped"] == 1
        assert row["weights"][0] == [1.0, 1.0] and all(weight != 1.0 for weight in row["weights"][1])


def _m_sam_by_hand() -> Weights:
    """The same run in one process, shard by shard."""
    task = ToyTask()
    torch.manual_seed(1)
    model = task.build()
    optimiser = torch.optim.AdamW(model.parameters(), lr=FIT.learning_rate, weight_decay=FIT.weight_decay)
    rises = FIT.warm_up * FIT.epochs * task.steps_per_epoch
    taken = 0
    for epoch in range(FIT.epochs):
        draws, augmentation, _ = (int(s.generate_state(1)[0]) for s in np.random.SeedSequence([1, epoch]).spawn(3))
        numpy_random = np.random.default_rng(draws)
        random = Randomness(torch.Generator().manual_seed(augmentation))
        for _ in range(task.steps_per_epoch):
            batch = task.batch(numpy_random, random, FIT.batch)
            shards = [{key: value[k : k + 4] for key, value in batch.items()} for k in (0, 4)]
            descents = [_descent(task, model, shard) for shard in shards]
            for parameter, *parts in zip(model.parameters(), *descents, strict=True):
                parameter.grad = torch.stack(parts).mean(dim=0)
            torch.nn.utils.clip_grad_norm_(model.parameters(), FIT.clip_norm)
            for group in optimiser.param_groups:
                group["lr"] = FIT.learning_rate * ((taken + 1) / rises if taken + 1 < rises else 1.0)
            optimiser.step()
            taken += 1
    return model.state_dict()


def _descent(task: ToyTask, model: torch.nn.Module, shard: dict[str, Tensor]) -> list[Tensor]:
    """Gradient at the top of the climb along this shard's own gradient."""
    gradient = torch.autograd.grad(task.loss(model, shard), list(model.parameters()))
    norm = torch.stack([part.norm() for part in gradient]).norm()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, part in zip(moved.parameters(), gradient, strict=True):
            parameter.add_(0.1 * part / norm)
    return list(torch.autograd.grad(task.loss(moved, shard), list(moved.parameters())))


def test_accumulated_batches_equal_one_large_batch() -> None:
    class Halves(ToyTask):
        """Draws the batch of 8 in two goes."""

        steps_per_epoch = 8

        def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> dict[str, Tensor]:
            if self.drawn % 2 == 0:
                self._whole = super().batch(numpy_random, random, 8)
                return {key: value[:4] for key, value in self._whole.items()}
            self.drawn += 1
            return {key: value[4:] for key, value in self._whole.items()}

    small = msgspec.structs.replace(FIT, batch=4, accumulate=2)
    for name in ("adamw", "sam"):
        whole = Trainer(FIT, OPTIMISERS[name], ToyTask(), seed=1).run().state_dict()
        _assert_close(Trainer(small, OPTIMISERS[name], Halves(), seed=1).run().state_dict(), whole)


def test_a_batch_that_cannot_be_shared_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(machine, "world", 3)
    with pytest.raises(TrainingError, match=r"batch of 8 .*3 processes.*fit.batch=6"):
        machine.share({"x": torch.zeros(8, 2)})


def test_a_gpu_that_is_not_there_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="--device cpu"):
        Machine(device="cuda")
    assert Machine(device="auto").device.type == "cpu"


def test_rows_are_counted_wherever_the_tensors_lie() -> None:
    assert rows_of({"a": [1, (torch.zeros(3, 2),)]}) == 3
    with pytest.raises(TrainingError, match="must return tensors"):
        rows_of({"a": 1})
