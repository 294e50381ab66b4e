"""What goes wrong in training stops it with the fix, and never costs more than the epoch under way."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError, TrainingError
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.task import ClassifyTask, classify_trainer
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import run_file
from tests.support.toy_task import FIT, OPTIMISERS, ToyTask


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_a_loss_that_is_no_number_stops_names_the_recordings_and_keeps_the_last_epoch(
    name: str, tmp_path: Path
) -> None:
    state = tmp_path / "state.pt"
    spoilt = Trainer(FIT, OPTIMISERS[name], ToyTask(spoil=ToyTask.steps_per_epoch + 2), seed=0)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 2, step 3; recordings in the batch: toy-3, toy-7"):
        spoilt.run(state)
    assert torch.load(state, weights_only=True)["epoch"] == 1
    assert all(torch.isfinite(p).all() for p in spoilt.model.parameters())
    resumed, whole = (Trainer(FIT, OPTIMISERS[name], ToyTask(), seed=0) for _ in range(2))
    for one, other in zip(resumed.run(state).parameters(), whole.run().parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(name: str, clip_norm: float) -> None:
    class Steep(ToyTask):
        """A finite loss whose slope is not: the root of zero."""

        def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            plain = super().loss(model, batch)
            return plain + torch.sqrt(0.0 * plain) if self.drawn == 3 else plain

    trainer = Trainer(msgspec.structs.replace(FIT, clip_norm=clip_norm), OPTIMISERS[name], Steep(), seed=0)
    with pytest.raises(TrainingError, match="gradient is not finite in epoch 1, step 3"):
        trainer.run()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_the_recordings_of_a_batch_can_be_named(recipe: Recipe, data: TrainingData) -> None:
    task = ClassifyTask(recipe, replace(data, names=np.array([f"r{k}" for k in range(len(data.bank.lengths))])))
    task.build()
    batch = task.batch(np.random.default_rng(0), Randomness(torch.Generator().manual_seed(0)), 8)
    assert len(task.sources(batch)) == 8
    assert set(task.sources(batch)) <= {f"r{k}" for k in range(12)}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to ..."),
    ],
)
def test_out_of_memory_names_the_batch_to_try(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ToyTask, "loss", fail)
    with pytest.raises(TrainingError, match=r"batches of 8.*--set fit.batch=4 --set fit.accumulate=2"):
        Trainer(FIT, OPTIMISERS["adamw"], ToyTask(), seed=0).run()


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(ToyTask, "loss", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        Trainer(FIT, OPTIMISERS["adamw"], ToyTask(), seed=0).run()


def _full_disk(content: Any, path: Path, *_: Any) -> None:
    Path(path).write_bytes(b"half a file")
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def _full_disk_as_torch_reports_it(content: Any, path: Path, *_: Any) -> None:
    Path(path).write_bytes(b"half a file")
    raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("writer", [_full_disk, _full_disk_as_torch_reports_it])
def test_a_full_disk_leaves_the_old_state_whole_and_the_run_goes_on_from_it(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.pt"
    once = msgspec.structs.replace(FIT, epochs=1)
    Trainer(once, OPTIMISERS["adamw"], ToyTask(), seed=0).run(state)
    before = state.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", writer)
        with pytest.raises(CheckpointError, match=r"disk is full.*same command.*previous one is intact"):
            Trainer(FIT, OPTIMISERS["adamw"], ToyTask(), seed=0).run(state)
    assert state.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identity.json", "state.pt"]
    resumed = Trainer(FIT, OPTIMISERS["adamw"], ToyTask(), seed=0)
    resumed.run(state)
    assert resumed.epoch == FIT.epochs


def test_a_first_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "save", _full_disk)
    checkpoint = tmp_path / "new" / "checkpoint.pt"
    with pytest.raises(CheckpointError, match="nothing was left behind"), run_file(checkpoint) as draft:
        torch.save({}, draft)
    assert list((tmp_path / "new").iterdir()) == []


def test_early_stop_keeps_the_best_epoch_by_validation(tmp_path: Path) -> None:
    patient = msgspec.structs.replace(FIT, epochs=20, patience=2)
    scores = [0.3, 0.6, 0.5, 0.4, 0.9]
    stopped = Trainer(patient, OPTIMISERS["adamw"], ToyTask(scores=scores), seed=0)
    model = stopped.run(tmp_path / "state.pt")
    assert (stopped.epoch, stopped.best_epoch, stopped.validation) == (4, 2, scores[:4])
    two = Trainer(patient, OPTIMISERS["adamw"], ToyTask(), seed=0)
    two.fit = msgspec.structs.replace(patient, epochs=2)
    for one, other in zip(model.parameters(), two.run().parameters(), strict=True):
        assert torch.equal(one, other)
    again = Trainer(patient, OPTIMISERS["adamw"], ToyTask(scores=[1.0]), seed=0)
    again.run(tmp_path / "state.pt")
    assert (again.epoch, again.best_epoch) == (4, 2)


def test_validation_patients_are_never_trained_on(recipe: Recipe, data: TrainingData) -> None:
    held = msgspec.structs.replace(
        recipe, fit=msgspec.structs.replace(recipe.fit, epochs=2, validation_share=0.25, patience=2)
    )
    trainer = classify_trainer(held, data, 0)
    task = trainer.task
    assert isinstance(task, ClassifyTask)
    trained = set(task.training.events.patient.tolist())
    validated = set(task.held_out.patient.tolist())
    assert trained and validated and not trained & validated
    assert trained | validated == set(data.events.patient.tolist())
    trainer.run()
    assert len(trainer.validation) == 2 and all(0.0 <= value <= 1.0 for value in trainer.validation)
