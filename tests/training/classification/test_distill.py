"""A teacher runs on the same audio, through its own front end, and is never trained or stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace as replaced
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError, RecipeError, TrainingError
from edge_sdk.models import registry
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.network import GridMix, Network, Outputs
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edge_sdk.training.classification.batch import Batch, Mixed
from edge_sdk.training.classification.distill import (
    HELD_OUT,
    Distillation,
    Teacher,
    make_distillation,
    taught_by_fold,
)
from edge_sdk.training.classification.objectives import make_objective
from edge_sdk.training.recipes.objective_settings import DistillSection, ObjectiveSection
from edge_sdk.training.recipes.recipe import load_recipe

LABELS = ("normal", "crackle", "wheeze", "both")
STUDENT = FrontEndSpec(window_s=1.0, mel_bins=24)
TEACHER = FrontEndSpec(
    rate_hz=8000, window_s=1.5, frame_samples=256, hop_samples=128, mel_bins=32, high_hz=3600.0
)  # fmt: skip


class _Pooled(Network):
    """Mean over time and a linear layer."""

    def __init__(self, classes: int, size: str, front_end: FrontEndSpec) -> None:
        super().__init__()
        self.embedding_dim = front_end.mel_bins
        self.head = nn.Linear(front_end.mel_bins, classes)

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        return features.mean(dim=(1, 3))

    def classify(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.ModelEntry("pooled", f"{__name__}:_Pooled", ("tiny",), "for tests")
    monkeypatch.setitem(registry.MODELS, "pooled", entry)


def _checkpoint(spec: FrontEndSpec = TEACHER, decoder: str = "softmax", logits: int = 4) -> Checkpoint:
    torch.manual_seed(0)
    network = _Pooled(logits, "tiny", spec)
    return Checkpoint(
        model="pooled", size="tiny", recipe={"name": "teacher"}, front_end=spec, labels=LABELS, decoder=decoder,
        temperature=1.0, bias=(0.0,) * logits, state=network.state_dict(),
    )  # fmt: skip


def _batch(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(3)
    wave = 0.1 * torch.randn(count, STUDENT.window_samples, generator=generator)
    targets = torch.eye(4)[torch.arange(count) % 4]
    return Batch(FoldedFrontEnd(STUDENT)(wave), targets, Randomness(generator), wave=wave)


def _student() -> _Pooled:
    torch.manual_seed(1)
    return _Pooled(4, "tiny", STUDENT)


def test_a_teacher_gets_its_own_rate_and_window(pooled: None) -> None:
    teacher = Teacher(_checkpoint(), STUDENT)
    tone = torch.sin(2 * torch.pi * 440.0 * torch.arange(STUDENT.window_samples) / STUDENT.rate_hz)[None]
    received = teacher.window(tone)
    assert received.shape == (1, TEACHER.window_samples)
    spectrum = torch.fft.rfft(received[:, : TEACHER.rate_hz]).abs()
    assert int(spectrum.argmax()) == 440
    assert teacher(tone).embedding.shape == (1, 32)


def test_a_shorter_window_is_the_middle_of_the_audio(pooled: None) -> None:
    teacher = Teacher(_checkpoint(FrontEndSpec(window_s=0.5)), STUDENT)
    wave = torch.arange(float(STUDENT.window_samples))[None]
    assert teacher.window(wave)[0, 0] == STUDENT.window_samples / 4


def test_the_students_own_spec_reaches_the_teacher_untouched(pooled: None) -> None:
    wave = _batch().wave
    assert wave is not None and torch.equal(Teacher(_checkpoint(STUDENT), STUDENT).window(wave), wave)


def test_loss_is_the_tempered_divergence_and_vanishes_for_a_twin(pooled: None) -> None:
    batch, teacher = _batch(), Teacher(_checkpoint(STUDENT), STUDENT)
    twin = _checkpoint(STUDENT).build()
    assert isinstance(twin, _Pooled) and batch.wave is not None
    settings = DistillSection(teacher="", weight=1.0, temperature=2.0)
    loss = Distillation(settings, [teacher], 24)(torch.tensor(9.0), twin.outputs(batch.features), batch)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    student = _student().outputs(batch.features)
    p = torch.softmax(teacher(batch.wave).logits / 2, dim=1)
    log_q = torch.log_softmax(student.logits / 2, dim=1)
    expected = 0.25 * 9.0 + 0.75 * 4.0 * (p * (p.log() - log_q)).sum(dim=1).mean()
    settings = DistillSection(teacher="", weight=0.75, temperature=2.0)
    assert torch.allclose(Distillation(settings, [teacher], 24)(torch.tensor(9.0), student, batch), expected)


@pytest.mark.parametrize(("decoder", "logits"), [("multilabel", 2), ("binary", 1)])
def test_independent_logits_are_distilled_one_by_one(
    pooled: None, decoder: str, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(STUDENT, decoder, logits)
    twin = _Pooled(logits, "tiny", STUDENT)
    twin.load_state_dict(checkpoint.state)
    monkeypatch.setattr(Checkpoint, "build", lambda self: twin)
    teacher = Teacher(checkpoint, STUDENT)
    batch = _batch()
    term = Distillation(DistillSection(teacher="", weight=1.0), [teacher], 24)
    outputs = twin.outputs(batch.features)
    assert float(term(torch.tensor(0.0), outputs, batch)) == pytest.approx(0.0, abs=1e-5)
    other = Outputs(outputs.logits + 1.0, outputs.embedding)
    assert float(term(torch.tensor(0.0), other, batch)) > 0.01


def test_a_student_comes_to_agree_and_the_teacher_stays(pooled: None, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    save_checkpoint(_checkpoint(), path)
    settings = DistillSection(teacher=str(path), weight=1.0, features=0.5)
    distillation = make_distillation(settings, STUDENT, LABELS, "softmax", 24)
    section = ObjectiveSection(distill=settings)
    objective = make_objective(section, "softmax", LABELS, distillation=distillation)
    names = {name for name, _ in objective.named_parameters()}
    assert names == {"distillation.projection.weight", "distillation.projection.bias"}, "no teacher among them"
    student, batch = _student(), _batch()
    before = {name: value.clone() for name, value in distillation.teachers[0]._network.state_dict().items()}
    optimiser = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=0.01)
    seen = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = objective(student, batch)
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.3 * seen[0]
    after = distillation.teachers[0]._network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_teacher_targets_are_mixed_like_the_features(pooled: None) -> None:
    batch, teacher = _batch(), Teacher(_checkpoint(STUDENT), STUDENT)
    wave = batch.wave
    assert wave is not None
    mixed = Mixed(torch.tensor([1, 0, 3, 2, 5, 4]), 0.3)
    batch = replace(batch, mixed=mixed)
    targets = mixed(torch.softmax(teacher(wave).logits, dim=1))
    perfect = Outputs(targets.log(), torch.zeros(6, 24))
    term = Distillation(DistillSection(teacher="", weight=1.0, temperature=1.0), [teacher], 24)
    assert float(term(torch.tensor(0.0), perfect, batch)) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(TrainingError, match=r"fit\.mixup_p=0"):
        Mixed(torch.tensor([7, 0]), 0.5)(torch.ones(2, 3))


def test_several_teachers_give_the_mean_of_their_probabilities(pooled: None, tmp_path: Path) -> None:
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path, front_end in zip(paths, (TEACHER, STUDENT), strict=True):
        save_checkpoint(_checkpoint(front_end), path)
    settings = DistillSection(teacher=f"{paths[0]}, {paths[1]}", weight=1.0, temperature=3.0)
    assert settings.files == tuple(paths)
    distillation, batch = make_distillation(settings, STUDENT, LABELS, "softmax", 24), _batch()
    assert batch.wave is not None
    each = [torch.softmax(Teacher(load_checkpoint(path), STUDENT)(batch.wave).logits / 3.0, dim=1) for path in paths]
    assert not torch.allclose(each[0], each[1], atol=1e-3), "two teachers of one mind would show nothing"
    perfect = Outputs(3.0 * ((each[0] + each[1]) / 2).log(), torch.zeros(6, 24))
    assert float(distillation(torch.tensor(0.0), perfect, batch)) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(RecipeError, match="one teacher"):
        make_distillation(replaced(settings, features=0.5), STUDENT, LABELS, "softmax", 24)


def test_the_teacher_of_a_fold_knows_none_of_its_patients(pooled: None, tmp_path: Path) -> None:
    recipe = load_recipe("compact", overrides=[f"objective.distill.teacher={tmp_path}/fold-{{fold}}/checkpoint.pt"])
    assert taught_by_fold(load_recipe("compact"), 0, ["ann"]) == load_recipe("compact")
    for fold, patients in enumerate((["ann", "bob"], ["cleo"])):
        checkpoint = replace(_checkpoint(), metrics={HELD_OUT: patients})
        save_checkpoint(checkpoint, tmp_path / f"fold-{fold}" / "checkpoint.pt")
    distill = taught_by_fold(recipe, 1, ["cleo"]).objective.distill
    assert distill is not None and distill.files == (tmp_path / "fold-1" / "checkpoint.pt",)
    assert taught_by_fold(recipe, 0, ["ann"]).objective.distill is not None, "it knows even fewer patients"
    with pytest.raises(RecipeError, match="patients that fold 0 holds out"):
        taught_by_fold(recipe, 0, ["ann", "cleo"])
    save_checkpoint(_checkpoint(), tmp_path / "fold-0" / "checkpoint.pt")
    with pytest.raises(RecipeError, match="patients that fold 0 holds out"):
        taught_by_fold(recipe, 0, ["ann", "bob"])


def test_unsuitable_teachers_are_refused_with_the_reason(pooled: None, tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    save_checkpoint(_checkpoint(), path)
    settings = DistillSection(teacher=str(path))
    with pytest.raises(RecipeError, match="same labels and decoder"):
        make_distillation(settings, STUDENT, LABELS, "multilabel", 24)
    with pytest.raises(RecipeError, match="same labels and decoder"):
        make_distillation(settings, STUDENT, ("normal", "abnormal"), "softmax", 24)
    with pytest.raises(RecipeError, match="names no checkpoint"):
        make_distillation(DistillSection(teacher=" , "), STUDENT, LABELS, "softmax", 24)
    with pytest.raises(CheckpointError, match="does not exist"):
        make_distillation(DistillSection(teacher=str(tmp_path / "none.pt")), STUDENT, LABELS, "softmax", 24)
    with pytest.raises(RecipeError, match="belong together"):
        make_objective(ObjectiveSection(distill=settings), "softmax", LABELS)


def test_a_batch_without_audio_cannot_be_distilled(pooled: None) -> None:
    term = Distillation(DistillSection(teacher=""), [Teacher(_checkpoint(STUDENT), STUDENT)], 24)
    batch = replace(_batch(), wave=None)
    with pytest.raises(RecipeError, match=r"Batch\.wave"):
        term(torch.tensor(0.0), _student().outputs(batch.features), batch)
