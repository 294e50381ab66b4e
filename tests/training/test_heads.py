"""A checkpoint with any kind of head evaluates and exports through its own decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import CheckpointError
from edge_sdk.models import build_model
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.calibration import checkpoint_decoder
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.checkpoint_classifier import load_checkpoint_classifier
from edge_sdk.training.recipes.recipe import Recipe
from export.documents.card import decision_text

HEADS = {
    "softmax": ("normal", "crackle", "wheeze", "both"),
    "multilabel": ("normal", "crackle", "wheeze", "both"),
    "binary": ("normal", "abnormal"),
}


def _checkpoint(recipe: Recipe, decoder: str, labels: tuple[str, ...], threshold: object = None) -> Checkpoint:
    logits = logit_count(decoder, labels)
    model = build_model("compact", size="tiny", classes=logits, front_end=recipe.spec)
    return Checkpoint(
        model="compact",
        size="tiny",
        recipe={"name": "compact", "decision": {"threshold": threshold}},
        front_end=recipe.spec,
        labels=labels,
        decoder=decoder,
        temperature=1.5,
        bias=(0.1,) * logits,
        state=model.state_dict(),
    )


@pytest.mark.parametrize("decoder", list(HEADS))
def test_every_head_evaluates_from_its_checkpoint(recipe: Recipe, decoder: str, tmp_path: Path) -> None:
    labels = HEADS[decoder]
    checkpoint = _checkpoint(recipe, decoder, labels)
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    classifier = load_checkpoint_classifier(tmp_path / "checkpoint.pt").classifier
    samples = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    result = classifier.classify_cycle(samples)
    assert tuple(result.probabilities) == labels and result.label in labels
    assert sum(result.probabilities.values()) == pytest.approx(1.0)
    found = checkpoint_decoder(checkpoint)
    assert found == classifier.decoder and found.kind == decoder


def test_a_threshold_of_the_recipe_decides(recipe: Recipe, tmp_path: Path) -> None:
    for threshold, label in ((0.001, "abnormal"), (0.999, "normal")):
        save_checkpoint(_checkpoint(recipe, "binary", HEADS["binary"], threshold), tmp_path / "checkpoint.pt")
        samples = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
        classifier = load_checkpoint_classifier(tmp_path / "checkpoint.pt").classifier
        assert classifier.classify_cycle(samples).label == label


def test_a_head_that_cannot_give_its_labels_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = replace(_checkpoint(recipe, "softmax", HEADS["softmax"]), bias=(0.0,) * 3)
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="3 biases for 4 labels"):
        load_checkpoint_classifier(tmp_path / "checkpoint.pt")


def test_the_model_card_states_how_labels_come_about() -> None:
    plain = {"kind": "softmax", "temperature": 0.5, "bias": [0.1], "threshold": None}
    assert decision_text(plain) == "softmax at temperature 0.500, bias [0.1], then the most probable label"
    assert decision_text({**plain, "kind": "multilabel", "threshold": [0.3, 0.4]}).endswith("then threshold [0.3, 0.4]")
