"""Softer targets from trained segmenters (arXiv:1503.02531): what several of them hear in the same frames.

Annotators leave breaths out and draw boundaries by eye. Networks that hear farther ahead, or were drawn differently,
agree on what can be heard at all; their mean is a steadier target than the annotation alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edge_sdk.errors import RecipeError
from edge_sdk.models.segmenter import Segmenter
from edge_sdk.signal.spec import FrontEndSpec


class Teachers:
    """Frozen segmenters; any look-ahead and size, one front end.

    Parameters
    ----------
    models
        Trained, at least one.
    spec
        Front end of the student, whose features they are given.
    weight
        Share of their answer in the targets, 0 to 1.

    Raises
    ------
    RecipeError
        None is given, one has another front end, or the weight is no share.
    """

    def __init__(self, models: Sequence[Segmenter], spec: FrontEndSpec, weight: float) -> None:
        if not models:
            raise RecipeError("segment.teachers is empty; give checkpoints of trained segmenters")
        if any(model.front_end != spec for model in models):
            raise RecipeError("segment.teachers: a teacher has another front end; train it by this recipe")
        if not 0.0 <= weight <= 1.0:
            raise RecipeError(f"segment.teacher_weight must lie between 0 and 1, got {weight}")
        self._models = [model.eval().requires_grad_(False) for model in models]
        self._weight = weight

    @torch.no_grad()
    def soften(self, features: Tensor, activity: Tensor, onset: Tensor) -> tuple[Tensor, Tensor]:
        """``features [B, M, T]``, annotated ``activity`` and ``onset [B, T]`` → the targets to learn, ``[B, T]``.

        Each frame gets what a teacher says once its own look-ahead has passed; at the end of the window the last frame
        is repeated, as at the end of a stream.
        """
        told = torch.zeros(2, *activity.shape)
        for model in self._models:
            ahead = features[:, :, -1:].expand(-1, -1, max(0, model.delay))
            said, _ = model(torch.cat((features, ahead), dim=2))
            for row, logits in zip(told, (said.activity, said.onset), strict=True):
                row += _of_each_frame(torch.sigmoid(logits), model.delay, activity.shape[1])
        mean = told / len(self._models)
        return torch.lerp(activity, mean[0], self._weight), torch.lerp(onset, mean[1], self._weight)


def _of_each_frame(answers: Tensor, delay: int, frames: int) -> Tensor:
    """Answers ``[B, n]``, of which column ``t`` speaks of frame ``t - delay`` → ``[B, frames]``, one for each frame.

    A network without any look-ahead speaks of frames that are still to end: of the first ones it says nothing, and
    what it says of the first it speaks of stands for them.
    """
    if delay >= 0:
        return answers[:, delay : delay + frames]
    early = answers[:, :1].expand(-1, -delay)
    return torch.cat((early, answers), dim=1)[:, :frames]


def teacher_paths(names: Sequence[str]) -> list[Path]:
    """The checkpoint files of ``segment.teachers``; a folder of a run stands for its checkpoint.

    Raises
    ------
    RecipeError
        A file that is not there.
    """
    paths = [Path(name) / "checkpoint.pt" if Path(name).is_dir() else Path(name) for name in names]
    for path in paths:
        if not path.is_file():
            raise RecipeError(f"segment.teachers: no checkpoint {path}; 'stetho train segmenter' writes one")
    return paths
