"""Training is a function of recipe, data and seed, however often it is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from edge_sdk.errors import CheckpointError
from edge_sdk.training.classification import crossval
from edge_sdk.training.classification.crossval import cross_validate
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.task import classify_trainer
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.recipes.recipe import Recipe


def _weights(recipe: Recipe, data: TrainingData, seed: int = 0, state: Path | None = None) -> dict[str, torch.Tensor]:
    return classify_trainer(recipe, data, seed).run(state).state_dict()


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class _Interrupt:
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def __call__(self, step: Step) -> None:
        if (step.epoch, step.step) == self.at:
            raise KeyboardInterrupt


def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    recipe: Recipe, data: TrainingData, tmp_path: Path
) -> None:
    state = tmp_path / "state.pt"
    for moment in (_Interrupt(1, 2), _Interrupt(2, 3)):
        with pytest.raises(KeyboardInterrupt):
            classify_trainer(recipe, data, 5).run(state, moment)
    resumed = classify_trainer(recipe, data, 5)
    resumed.run(state)
    whole = classify_trainer(recipe, data, 5)
    whole.run()
    assert _same(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.losses == whole.losses
    assert not list(tmp_path.glob("*.part"))


def test_same_seed_gives_the_same_weights_and_another_seed_others(recipe: Recipe, data: TrainingData) -> None:
    first = _weights(recipe, data, seed=1)
    torch.manual_seed(99)  # nothing may hang on the global state
    assert _same(first, _weights(recipe, data, seed=1))
    assert not _same(first, _weights(recipe, data, seed=2))


def test_training_leaves_the_callers_random_state_alone(recipe: Recipe, data: TrainingData) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    classify_trainer(recipe, data, 0).run()
    assert torch.equal(before, torch.get_rng_state())


def test_state_of_another_run_is_refused_with_the_fix(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    classify_trainer(recipe, data, 0).run(state)
    with pytest.raises(CheckpointError, match=r"seed \(0 → 1\) differ.*delete"):
        classify_trainer(recipe, data, 1).run(state)
    longer = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, epochs=4))
    with pytest.raises(CheckpointError, match="recipe"):
        classify_trainer(longer, data, 0).run(state)
    state.write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="cannot be read"):
        classify_trainer(recipe, data, 0).run(state)


def test_finished_run_is_not_trained_further(recipe: Recipe, data: TrainingData, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    first = _weights(recipe, data, state=state)
    steps: list[Step] = []
    again = classify_trainer(recipe, data, 0)
    again.run(state, steps.append)
    assert steps == []
    assert _same(first, again.model.state_dict())


def test_a_plain_task_is_learned(recipe: Recipe, data: TrainingData) -> None:
    easy = msgspec.structs.replace(
        recipe,
        fit=msgspec.structs.replace(recipe.fit, epochs=20, learning_rate=1e-2, label_smoothing=0.0),
        sampling=msgspec.structs.replace(recipe.sampling, exact_share=1.0),
        augment=msgspec.structs.replace(recipe.augment, masks=0),
    )
    trainer = classify_trainer(easy, data, 0)
    logits = cycle_logits(trainer.run(), easy, data, data.events)
    assert trainer.losses[-1] < 0.5 * trainer.losses[0]
    assert (logits.argmax(axis=1) == data.events.bits).mean() > 0.9


def test_cross_validation_scores_every_cycle_once_with_a_model_not_trained_on_its_patient(
    recipe: Recipe, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[set[str]] = []

    def spy(recipe: Recipe, data: TrainingData, seed: int, **more: Any) -> Trainer:
        trained_on.append({str(patient) for patient in data.events.patient})
        noise_patients = {str(data.patient[index]) for index in data.noise}
        assert noise_patients <= trained_on[-1]
        return classify_trainer(recipe, data, seed, **more)

    monkeypatch.setattr(crossval, "classify_trainer", spy)
    short = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, epochs=1))
    result = cross_validate(short, data, folds=3, seed=0)
    assert result.metrics["n"] == len(data.events) == result.logits.shape[0]
    assert (result.logits != 0).any(axis=1).all()
    for number, patients in enumerate(trained_on):
        held_out = {str(patient) for patient in data.events.patient[result.fold == number]}
        assert held_out and not held_out & patients
