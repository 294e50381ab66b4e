"""Synthetic crackles and wheezes: on normal cycles only, with the label and the pitch they should have."""

from __future__ import annotations

import torch

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.audio.synthetic import add_adventitious
from edge_sdk.training.recipes.recipe import SyntheticSection

RATE, WINDOW, COUNT = 4000, 8000, 64


def _add(
    settings: SyntheticSection, label: torch.Tensor, length: int = WINDOW
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Wave before, wave after and labels after."""
    random = Randomness(torch.Generator().manual_seed(1))
    wave = random.normal(COUNT, WINDOW) * 0.01
    position = torch.remainder(torch.arange(WINDOW), length).expand(COUNT, -1)
    after, labels = add_adventitious(wave, label, position, settings, RATE, random)
    return wave, after, labels


def test_abnormal_breaths_are_left_alone() -> None:
    label = torch.arange(COUNT) % 4
    before, after, labels = _add(SyntheticSection(crackle_p=1.0, wheeze_p=1.0), label)
    assert torch.equal(after[label > 0], before[label > 0])
    assert torch.equal(labels[label > 0], label[label > 0])
    assert (labels[label == 0] == 3).all()
    assert (after[label == 0] != before[label == 0]).any(dim=1).all()


def test_label_is_what_was_added() -> None:
    label = torch.zeros(COUNT, dtype=torch.int64)
    before, after, labels = _add(SyntheticSection(crackle_p=0.5, wheeze_p=0.5), label)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert torch.equal((after != before).any(dim=1), labels > 0)
    _, _, untouched = _add(SyntheticSection(), label)
    assert (untouched == 0).all()


def test_crackles_are_brief_and_wheezes_last() -> None:
    label = torch.zeros(COUNT, dtype=torch.int64)
    before, crackled, _ = _add(SyntheticSection(crackle_p=1.0), label)
    _, whistled, _ = _add(SyntheticSection(wheeze_p=1.0), label)
    kurtosis = [((w - before) ** 4).mean() / ((w - before) ** 2).mean() ** 2 for w in (crackled, whistled)]
    assert kurtosis[0] > 5 * kurtosis[1]
    busy = ((crackled - before).abs() > 1e-4).float().mean(dim=1)
    assert busy.max() < 12 * 0.025 * RATE / WINDOW + 1e-6


def test_what_is_added_repeats_with_the_breath() -> None:
    label = torch.zeros(COUNT, dtype=torch.int64)
    before, after, _ = _add(SyntheticSection(crackle_p=1.0, wheeze_p=1.0), label, length=2000)
    added = after - before
    torch.testing.assert_close(added[:, :2000], added[:, 2000:4000], atol=1e-6, rtol=0)
