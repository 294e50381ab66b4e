"""Objectives give the published numbers, and each term reaches what it should and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.network import GridMix, Network, Outputs
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.classification.batch import Batch, mixup_batch
from edge_sdk.training.classification.objectives import losses, make_objective
from edge_sdk.training.classification.objectives.losses import soft_cross_entropy
from edge_sdk.training.classification.objectives.patch_mix import AXES, GridMixer, contrastive_loss
from edge_sdk.training.classification.objectives.targets import (
    class_weights,
    label_probabilities,
    logit_targets,
    positive_weights,
    smooth_targets,
)
from edge_sdk.training.recipes.objective_settings import BiasDenoisingSection, ObjectiveSection, PatchMixSection

LABELS = ("normal", "crackle", "wheeze", "both")
ICBHI_TRAIN = (2063, 1215, 501, 363)  # cycles of the official split


class _Tiny(Network):
    embedding_dim = 12

    def __init__(self, logits: int = 4, *, auxiliary: bool = False, mixes: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 4, stride=4)
        self.head = nn.Linear(12, logits)
        self.extra = nn.Linear(12, logits) if auxiliary else None
        self.passes = 0
        self._mixes = mixes

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        self.passes += 1
        grid = self.stem(features)
        if mix is not None and self._mixes:
            grid = mix(grid)
        return torch.tanh(grid).mean(dim=(2, 3))

    def classify(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)

    def outputs(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Outputs:
        embedding = self.embed(features, metadata, mix=mix)
        heads = {} if self.extra is None else {"bias": self.extra(embedding)}
        return Outputs(self.classify(embedding), embedding, heads)


def _batch(count: int = 8, smoothing: float = 0.0, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    features = torch.randn(count, 1, 16, 32, generator=generator)
    return Batch(features, smooth_targets(labels, 4, smoothing), Randomness(generator))


def _model(logits: int = 4, **options: bool) -> _Tiny:
    torch.manual_seed(0)
    return _Tiny(logits, **options)


def _pair(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (count,), generator=generator)
    return torch.randn(count, 4, generator=generator), F.one_hot(labels, 4).float()


# ---------------------------------------------------------------- losses on the labels


def test_the_default_objective_is_the_smoothed_cross_entropy_of_the_compact_recipe() -> None:
    model, batch = _model(), _batch(smoothing=0.05)
    loss = make_objective(ObjectiveSection(), "softmax", LABELS)(model, batch)
    assert torch.equal(loss, soft_cross_entropy(model(batch.features), batch.targets))
    hard = torch.arange(8) % 4
    assert torch.allclose(loss, F.cross_entropy(model(batch.features), hard, label_smoothing=0.05), atol=1e-6)


def test_class_weights_agree_with_torch() -> None:
    logits, targets = _pair()
    weight = class_weights(ICBHI_TRAIN, "inverse")
    ours = losses.weighted_cross_entropy(logits, targets, weight)
    assert torch.allclose(ours, F.cross_entropy(logits, targets.argmax(dim=1), weight=weight), atol=1e-6)
    assert torch.allclose(weight * torch.tensor(ICBHI_TRAIN), (weight * torch.tensor(ICBHI_TRAIN))[0].expand(4))
    root = class_weights(ICBHI_TRAIN, "sqrt")
    assert torch.allclose((root / root[0]) ** 2, weight / weight[0])
    assert class_weights(ICBHI_TRAIN, "none").tolist() == [1.0] * 4


def test_focal_without_focus_is_cross_entropy_and_focus_forgives_the_easy() -> None:
    logits, targets = _pair()
    plain = losses.focal(logits, targets, 0.0, torch.tensor([1.0]))
    assert torch.allclose(plain, soft_cross_entropy(logits, targets), atol=1e-6)
    p = torch.softmax(logits, dim=1)[targets.bool()]
    expected = (-0.5 * (1 - p) ** 2 * p.log()).mean()
    assert torch.allclose(losses.focal(logits, targets, 2.0, torch.tensor([0.5] * 4)), expected, atol=1e-6)


def test_focal_teaches_hopeless_examples_too() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0, 0.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), 2.0, torch.tensor([0.5])).backward()
    assert logits.grad is not None and float(logits.grad[0, 1]) < -0.1


def test_positive_weights_are_those_of_the_official_training_half() -> None:
    assert positive_weights(ICBHI_TRAIN, "multilabel").tolist() == pytest.approx([1.625, 3.794], abs=5e-4)
    assert positive_weights(ICBHI_TRAIN, "binary").tolist() == pytest.approx([0.992], abs=5e-4)


def test_both_counts_for_crackle_and_for_wheeze() -> None:
    eye = torch.eye(4)
    assert logit_targets(eye, "multilabel").tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert logit_targets(eye, "binary").tolist() == [[0], [1], [1], [1]]
    assert logit_targets(eye, "softmax") is eye


@pytest.mark.parametrize(("decoder", "logits"), [("multilabel", 2), ("binary", 1)])
def test_independent_logits_train_with_weighted_binary_cross_entropy(decoder: str, logits: int) -> None:
    model, batch = _model(logits), _batch()
    labels = LABELS if decoder == "multilabel" else ("normal", "abnormal")
    section = ObjectiveSection(sensitivity_bias=1.5)
    loss = make_objective(section, decoder, labels, class_counts=ICBHI_TRAIN)(model, batch)
    weight = positive_weights(ICBHI_TRAIN, decoder) * 1.5
    targets = logit_targets(batch.targets, decoder)
    expected = F.binary_cross_entropy_with_logits(model(batch.features), targets, pos_weight=weight)
    assert torch.allclose(loss, expected)


def test_hierarchical_loss_halves_partly_right_predictions_and_doubles_misses() -> None:
    targets = torch.eye(4)[[3, 1, 0]]
    bits, ones = logit_targets(targets, "multilabel"), torch.ones(2)
    logits = torch.tensor([[2.0, -2.0], [-2.0, -2.0], [-2.0, -2.0]])  # half of both, missed, right
    each = F.binary_cross_entropy_with_logits(logits, bits, reduction="none").mean(dim=1)
    expected = (0.5 * each[0] + 2.0 * each[1] + each[2]) / 3
    assert torch.allclose(losses.hierarchical(logits, targets, bits, ones), expected)


def test_expected_cost_is_nothing_for_the_truth_and_the_table_elsewhere() -> None:
    sure = torch.tensor([[-40.0, -40.0], [40.0, -40.0], [-40.0, 40.0], [40.0, 40.0]])
    assert float(losses.expected_cost(sure, torch.eye(4), torch.ones(4))) == pytest.approx(0.0, abs=1e-6)
    missed = losses.expected_cost(sure[:1], torch.eye(4)[3:], torch.ones(4))
    assert float(missed) == pytest.approx(2.5)
    assert torch.allclose(label_probabilities(torch.randn(5, 2)).sum(dim=1), torch.ones(5))


def test_asymmetric_loss_ignores_easy_negatives_and_equals_cross_entropy_without_focus() -> None:
    logits, targets = torch.randn(6, 2), torch.randint(0, 2, (6, 2)).float()
    plain = losses.asymmetric(logits, targets, 0.0, 0.0, 0.0)
    assert torch.allclose(plain, F.binary_cross_entropy_with_logits(logits, targets), atol=1e-6)
    easy = torch.tensor([[-4.0, -5.0]], requires_grad=True)  # below 0.05
    losses.asymmetric(easy, torch.zeros(1, 2), 4.0, 1.0, 0.05).backward()
    assert easy.grad is not None and float(easy.grad.abs().max()) == 0.0


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "hierarchical", "composite", "asymmetric"])
def test_every_multilabel_loss_falls_on_a_batch_it_can_learn(kind: str) -> None:
    model, batch = _model(2), _batch()
    section = ObjectiveSection(kind=kind)  # type: ignore[arg-type]
    objective = make_objective(section, "multilabel", LABELS, class_counts=ICBHI_TRAIN)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    seen = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = objective(model, batch)
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.7 * seen[0]


# ---------------------------------------------------------------- auxiliary heads


def test_divergence_of_the_published_code_is_cross_entropy_at_four_fifteenths_less_a_constant() -> None:
    logits, targets = _pair()
    kl = losses.denoising_divergence(logits, targets, 0.2)
    smooth = F.cross_entropy(logits, targets.argmax(dim=1), label_smoothing=4 / 15)
    entropy = -(0.8 * torch.tensor(0.8).log() + 0.2 * torch.tensor(0.2 / 3).log())
    assert torch.allclose(kl, smooth - entropy, atol=1e-6)


def test_bias_denoising_mixes_both_losses() -> None:
    model, batch = _model(auxiliary=True), _batch()
    section = ObjectiveSection(bias_denoising=BiasDenoisingSection(beta=0.25))
    loss = make_objective(section, "softmax", LABELS)(model, batch)
    outputs, hard = model.outputs(batch.features), torch.arange(8) % 4
    auxiliary = F.cross_entropy(outputs.auxiliary["bias"], hard, label_smoothing=0.2)
    assert torch.allclose(loss, 0.25 * auxiliary + 0.75 * F.cross_entropy(outputs.logits, hard), atol=1e-6)


# ---------------------------------------------------------------- Patch-Mix


def test_a_whole_share_is_the_identity_target_of_info_nce() -> None:
    query, key = torch.randn(5, 8), torch.randn(5, 8)
    order = torch.tensor([1, 2, 3, 4, 0])
    cosine = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T
    expected = F.cross_entropy(cosine / 0.06, torch.arange(5))
    assert torch.allclose(contrastive_loss(query, key, order, 1.0, 0.06), expected, atol=1e-6)
    assert torch.allclose(contrastive_loss(query, key, torch.arange(5), 0.3, 0.06), expected, atol=1e-6)
    other = F.cross_entropy(cosine / 0.06, order)
    mixed = contrastive_loss(query, key, order, 0.3, 0.06)
    assert torch.allclose(mixed, 0.3 * expected + 0.7 * other, atol=1e-5)


def test_same_labels_leave_the_denominator_unless_they_are_positives() -> None:
    query, key = torch.randn(4, 8), torch.randn(4, 8)
    order, same = torch.tensor([1, 0, 3, 2]), torch.ones(4, 4, dtype=torch.bool)
    loss = contrastive_loss(query, key, order, 0.5, 0.06, same)
    cosine = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / 0.06
    rows = torch.stack([cosine[i, [i, int(order[i])]] for i in range(4)])
    assert torch.allclose(loss, -F.log_softmax(rows, dim=1).mean(), atol=1e-5)


@pytest.mark.parametrize(("key", "flows"), [("grad_block", False), ("project_block", False), ("grad_flow", True)])
def test_the_key_gets_a_gradient_only_where_it_flows(key: str, flows: bool) -> None:
    objective = make_objective(
        ObjectiveSection(patch_mix=PatchMixSection(key=key)),  # type: ignore[arg-type]
        "softmax",
        LABELS,
        embedding_dim=12,
    )
    clean = torch.randn(8, 12, requires_grad=True)
    assert objective.patch_mix is not None
    objective.patch_mix(_model(), _batch(), clean).backward()
    assert (clean.grad is not None and bool(clean.grad.abs().max() > 0)) == flows


@pytest.mark.parametrize("axis", ["patch", "time", "frequency", "both"])
def test_cells_come_from_the_partner_and_the_share_is_what_stayed(axis: str) -> None:
    grid = torch.arange(4.0)[:, None, None, None].expand(4, 2, 12, 79)  # each example is its own number
    order = torch.tensor([1, 2, 3, 0])
    keep = (0.3, 0.6) if axis == "both" else (0.3,)
    mixer = GridMixer(axis, keep, order, Randomness(torch.Generator().manual_seed(0)))
    mixed = mixer(grid)
    taken = mixed[0, 0] == 1.0
    assert torch.equal(mixed[:, 0], torch.where(taken, order.float()[:, None, None], grid[:, 0]))
    assert mixer.share == pytest.approx(1.0 - float(taken.double().mean()))
    columns, rows = taken.all(dim=0).sum(), taken.all(dim=1).sum()
    if axis == "patch":
        assert int(taken.sum()) == int(12 * 79 * 0.7)
    if axis in ("time", "both"):
        assert int(columns) == int(79 * 0.7)
    if axis in ("frequency", "both"):
        assert int(rows) == int(12 * (1.0 - keep[-1]))
    if axis in ("time", "frequency"):
        assert int(taken.sum()) == (int(columns) * 12 if axis == "time" else int(rows) * 79)


@pytest.mark.parametrize("axis", list(AXES))
def test_every_axis_trains_network_and_projector_in_the_passes_it_promises(axis: str) -> None:
    model, batch = _model(), _batch()
    section = ObjectiveSection(patch_mix=PatchMixSection(axis=axis))  # type: ignore[arg-type]
    objective = make_objective(section, "softmax", LABELS, embedding_dim=12).train()
    loss = objective(model, batch)
    loss.backward()
    assert model.passes == (3 if axis == "dual" else 2)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters())
    assert model.stem.weight.grad is not None and bool(model.stem.weight.grad.abs().max() > 0)
    again = objective(_model(), _batch())
    assert torch.allclose(loss, again, atol=1e-6), "a function of weights, batch and the given random numbers"


def test_a_network_that_ignores_the_mix_hook_is_refused() -> None:
    section = ObjectiveSection(patch_mix=PatchMixSection())
    with pytest.raises(TypeError, match="mix hook"):
        make_objective(section, "softmax", LABELS, embedding_dim=12)(_model(mixes=False), _batch())


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("kind", ["cross_entropy", "composite"])
def test_losses_stay_in_full_precision_under_autocast(kind: str) -> None:
    decoder = "softmax" if kind == "cross_entropy" else "multilabel"
    section = ObjectiveSection(
        kind=kind,  # type: ignore[arg-type]
        patch_mix=PatchMixSection(axis="dual", projector_norm="layer"),
    )
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        objective = make_objective(section, decoder, LABELS, class_counts=ICBHI_TRAIN, embedding_dim=12)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = objective(_model(4 if kind == "cross_entropy" else 2), _batch())
        assert loss.dtype == torch.float32
        found.append(float(loss.detach()))
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_the_penalty_of_the_network_is_added() -> None:
    model, batch = _model(), _batch()
    plain = make_objective(ObjectiveSection(), "softmax", LABELS)(model, batch)
    model.penalty = lambda: torch.tensor(0.125)  # type: ignore[method-assign]
    loss = make_objective(ObjectiveSection(), "softmax", LABELS)(model, batch)
    assert torch.allclose(loss, plain + 0.125)


def test_a_mixed_batch_remembers_how() -> None:
    batch = _batch()
    mixed = mixup_batch(replace(batch, random=Randomness(torch.Generator().manual_seed(2))))
    assert mixed.mixed is not None
    assert torch.equal(mixed.features, mixed.mixed(batch.features))
    assert torch.allclose(mixed.targets.sum(dim=1), torch.ones(8))


@pytest.mark.parametrize(
    ("section", "decoder", "message"),
    [
        (ObjectiveSection(kind="hierarchical"), "softmax", "multilabel"),
        (ObjectiveSection(kind="composite"), "binary", "multilabel"),
        (ObjectiveSection(class_weight="sqrt"), "softmax", "class_counts"),
        (ObjectiveSection(class_weight="sqrt"), "multilabel", "sensitivity_bias"),
        (ObjectiveSection(), "multilabel", "class_counts"),
        (ObjectiveSection(pos_weight=(1.0,)), "multilabel", "1 numbers for 2 logits"),
        (ObjectiveSection(kind="focal", focal_alpha=(0.1, 0.2)), "softmax", "focal_alpha"),
        (ObjectiveSection(patch_mix=PatchMixSection()), "softmax", "embedding_dim"),
        (ObjectiveSection(bias_denoising=BiasDenoisingSection()), "binary", "softmax"),
        (ObjectiveSection(), "oracle", "does not exist"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(section: ObjectiveSection, decoder: str, message: str) -> None:
    labels = LABELS if decoder != "binary" else ("normal", "abnormal")
    with pytest.raises(RecipeError, match=message):
        make_objective(section, decoder, labels)


def test_an_auxiliary_loss_needs_an_auxiliary_head() -> None:
    section = ObjectiveSection(bias_denoising=BiasDenoisingSection())
    with pytest.raises(RecipeError, match="no auxiliary head"):
        make_objective(section, "softmax", LABELS)(_model(), _batch())
