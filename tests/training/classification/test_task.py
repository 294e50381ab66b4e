"""The classifier's task: precision, teachers, metadata and schedules reach the loop as the recipe sets them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edge_sdk.errors import RecipeError
from edge_sdk.models.yamnet import Yamnet
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.task import ClassifyTask, classify_trainer, schema_of
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.loop.optim import make_schedule
from edge_sdk.training.recipes.objective_settings import OptimiserSection
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from tests.support.toy_task import FIT, OPTIMISERS, ToyTask

_SHORT = ["fit.epochs=2", "fit.batch=16", "sampling.per_epoch=64", "front_end.window_s=1.0", "heart_corpus=null"]


def _recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(name, size="tiny", overrides=[*_SHORT, *overrides])


def _with_metadata(data: TrainingData) -> TrainingData:
    rows: list[dict[str, Any]] = [
        {"device": ("A", "B", None)[k % 3], "site": f"s{k % 2}", "sex": "male", "age_years": 3.0 + k, "bmi": None}
        for k in range(len(data.bank.lengths))
    ]
    return replace(data, metadata=tuple(rows))


def test_bf16_trains_and_keeps_float32_weights(data: TrainingData) -> None:
    trainer = classify_trainer(_recipe("compact", "precision=bf16-mixed"), data, 0)
    model = trainer.run()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = classify_trainer(_recipe("compact"), data, 0)
    exact.run()
    assert trainer.losses != exact.losses
    assert trainer.losses == pytest.approx(exact.losses, abs=0.1)


def test_a_checkpoint_teaches_a_student_of_another_model(data: TrainingData, tmp_path: Path) -> None:
    recipe = _recipe("ast")
    teacher = classify_trainer(recipe, data, 0).run()
    path = tmp_path / "teacher.pt"
    save_checkpoint(
        Checkpoint(
            model="ast",
            size="tiny",
            recipe=recipe.to_dict(),
            front_end=recipe.spec,
            labels=recipe.labels,
            decoder="softmax",
            temperature=1.0,
            bias=(0.0,) * 4,
            state=teacher.state_dict(),
        ),
        path,
    )
    taught = _recipe("compact", f"distill.teacher={path}", "distill.features=0.1", "mixup_p=0.5")
    student = classify_trainer(taught, data, 0)
    model = student.run(tmp_path / "state.pt")
    alone = classify_trainer(_recipe("compact", "mixup_p=0.5"), data, 0)
    assert set(model.state_dict()) == set(alone.run().state_dict())  # nothing of the teacher ships
    assert student.losses != alone.losses
    again = classify_trainer(taught, data, 0)
    again.run(tmp_path / "state.pt")
    assert again.epoch == 2


def test_public_weights_are_settled_on_training_features_before_the_first_step(
    data: TrainingData, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    source = Yamnet(4, "tiny")
    torch.save(source.state_dict(), tmp_path / "public.pt")
    task = ClassifyTask(_recipe("yamnet", f"model.pretrained={tmp_path / 'public.pt'}"), data)
    model, again = task.build().eval(), task.build().eval()
    features = task.batch(np.random.default_rng(5), Randomness(torch.Generator().manual_seed(5)), 64).features
    assert isinstance(model, Yamnet) and isinstance(again, Yamnet)
    with torch.no_grad():
        before = source.eval().maps(features)
        torch.testing.assert_close(model.maps(features), before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again.maps(features), model.maps(features), atol=0, rtol=0)
        assert (model.train().maps(features) - before).norm() < 0.5 * (source.train().maps(features) - before).norm()
    fresh = ClassifyTask(_recipe("yamnet"), data).build()
    assert not fresh.state_dict()["layers.0.norm.running_mean"].any()


def test_metadata_of_the_training_rows_reach_the_network(data: TrainingData) -> None:
    trainer = classify_trainer(_recipe("film"), _with_metadata(data), 0)
    schema = schema_of(trainer)
    assert schema is not None
    assert schema.categorical == {"device": ("A", "B"), "site": ("s0", "s1")}
    assert schema.continuous == ("age_years", "bmi", "duration_s")
    batch = trainer.task.batch(np.random.default_rng(0), Randomness(torch.Generator().manual_seed(0)), 16)
    given = batch.metadata.arrays()
    assert set(given["device"].tolist()) <= {0, 1, 2}
    valid = given["cont_valid"]
    assert not valid[:, 1].any()  # no row has a BMI
    assert 0.5 < float(valid[:, 2].mean()) < 1.0  # durations are, but for what is withheld


def test_schema_is_of_the_patients_that_are_trained_on(data: TrainingData) -> None:
    described = _with_metadata(data)
    held = _recipe("film", "validation_share=0.25")
    task = ClassifyTask(held, described, seed=0)
    ages = [described.metadata[int(k)]["age_years"] for k in task.training.events.recording]
    assert task.schema is not None
    assert task.schema.mean[0] == pytest.approx(float(np.mean(ages)))


def test_paper_recipes_start_every_breath_at_its_first_sample(data: TrainingData) -> None:
    recipe = _recipe("compact", "exact_share=1.0", "slow_down=0.0", "speed_up=0.0", "phase=0.0", "mixup_p=0.0")
    task = ClassifyTask(recipe, data)
    task.build()
    draw = task.batch(np.random.default_rng(0), Randomness(torch.Generator().manual_seed(0)), 8)
    again = task.batch(np.random.default_rng(0), Randomness(torch.Generator().manual_seed(9)), 8)
    assert torch.equal(draw.features, again.features)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cosine_epoch", [0.75, 0.75, 0.25, 0.25, 0.0, 0.0]),
        ("htsat", [0.02, 0.02, 0.05, 0.05, 0.1, 0.1]),
        ("constant", [1.0] * 6),
    ],
)
def test_schedules_by_epoch(kind: str, expected: list[float]) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    section = msgspec.convert({"schedule": kind, "final_rate": 0.0}, OptimiserSection)
    schedule = make_schedule(section, optimiser, steps_per_epoch=2, epochs=3, warm_up=0.0)
    rates = []
    for _ in range(6):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx(expected)


def test_averaging_after_each_step_is_a_shorter_step() -> None:
    """``ma_beta`` against θ ← ½ θ_old + ½ θ_new done by hand after each full step."""
    by_rate = Trainer(msgspec.structs.replace(FIT, ma_beta=0.5), OPTIMISERS["adamw"], ToyTask(), seed=0)
    by_rate.run()
    by_hand = Trainer(FIT, OPTIMISERS["adamw"], ToyTask(), seed=0)
    network = by_hand._model
    old = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def average(_: Step) -> None:
        for parameter, before in zip(network.parameters(), old, strict=True):
            parameter.lerp_(before, 0.5)
            before.copy_(parameter)

    by_hand.run(on_step=average)
    for one, other in zip(by_rate._model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("override", "named"),
    [("fit.batch=0", ">= 1"), ("accumulate=0", ">= 1"), ("validation_share=1.0", "< 1"), ("precision=fp16", "fp16")],
)
def test_impossible_fits_are_refused(override: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        load_recipe("compact", overrides=[override])
