"""Attention of an AST's class tokens over the log-mel picture of one cycle per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.models.add import Add
from edge_sdk.models.ast import Ast
from edge_sdk.models.inspect import attention_maps
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.figures.page import DrawnFigure, NotApplicableError, new_page

_CONTRAST = 4.0  # so that next to uniform attention looks as even as it is

Picture = Callable[[Tensor], Tensor]
"""Features ``[B, 1, M, T]`` → the input picture of the AST."""


def transformer_of(model: nn.Module) -> tuple[Ast, Picture]:
    """The AST inside a model and its input picture; ``NotApplicableError`` where there is none."""
    if isinstance(model, Ast):
        return model, lambda features: features
    if isinstance(model, Add):
        return model.backbone, lambda features: model.denoise(features)[1].transpose(1, 2).unsqueeze(1)
    raise NotApplicableError("only models with an AST inside have class tokens and blocks")


@torch.no_grad()
def attention(evaluated: EvaluatedModel) -> DrawnFigure:
    """A row per class: the picture, and the attention of the first and the last block, averaged over heads."""
    ast, picture_of = transformer_of(evaluated.model)
    chosen = _examples(evaluated)
    order = sorted(chosen.values())
    features = evaluated.features(order)
    picture = picture_of(features)
    maps = attention_maps(ast, picture, evaluated.metadata(order))  # [B, L, heads, H, W]
    shown = picture if ast.canvas is None else ast.canvas(picture)
    spec = evaluated.checkpoint.front_end
    seconds = spec.window_s * shown.shape[3] / picture.shape[3]
    box = (0.0, seconds, 0.0, float(shown.shape[2]))
    cells = _cells(ast, maps, seconds / shown.shape[3])
    last = maps.shape[1] - 1
    figure, axes = new_page(len(chosen), 3, 10.5, 0.9 + 1.75 * len(chosen), sharex=True, sharey=True)
    rows = []
    for row, (label, index) in enumerate(chosen.items()):
        position = order.index(index)
        _row(axes[row], shown[position, 0], maps[position], box, cells, first=row == 0, last_block=last)
        correct = "" if evaluated.decisions[index] == evaluated.truth[index] else ",\npredicted as another"
        axes[row, 0].set_ylabel(
            f"{label}\n(p = {evaluated.probabilities[index, evaluated.truth[index]]:.2f}{correct})", fontsize=8
        )
        rows.append(_numbers(evaluated, label, index, maps[position]))
    for axis in axes[-1]:
        axis.set_xlabel("s", fontsize=8)
    numbers = {"grid": [maps.shape[3], maps.shape[4]], "heads": maps.shape[2], "examples": rows}
    note = (
        "CLS and DIST averaged over heads; colours from 0 to the largest weight, at least "
        f"{_CONTRAST:g} times a uniform one; of each class the breath with the highest probability"
    )
    return DrawnFigure(figure, numbers, note)


def _examples(evaluated: EvaluatedModel) -> dict[str, int]:
    """Of each class the cycle with the highest probability of it, those with the right prediction first."""
    chosen = {}
    right = evaluated.decisions == evaluated.truth
    for label, name in enumerate(evaluated.labels):
        members = np.flatnonzero(evaluated.truth == label)
        if len(members):
            rank = evaluated.probabilities[members, label] + right[members]
            chosen[name] = int(members[rank.argmax()])
    return chosen


def _cells(ast: Ast, maps: Tensor, frame_s: float) -> tuple[float, ...]:
    """Seconds and mel bins that the patches' cells cover; of overlapping patches, the part around their centres."""
    (patch_mel, patch_time), (step_mel, step_time) = ast.encoder.plan.patch, ast.encoder.plan.stride
    left, bottom = (patch_time - step_time) / 2, (patch_mel - step_mel) / 2
    right, top = left + step_time * maps.shape[4], bottom + step_mel * maps.shape[3]
    return left * frame_s, right * frame_s, bottom, top


def _row(
    axes: Any,
    picture: Tensor,
    maps: Tensor,
    box: tuple[float, ...],
    cells: tuple[float, ...],
    *,
    first: bool,
    last_block: int,
) -> None:
    axes[0].imshow(picture.numpy(), origin="lower", aspect="auto", extent=box, cmap="magma")
    pairs = ((axes[1], 0), (axes[2], last_block))
    for axis, block in pairs:
        axis.imshow(picture.numpy(), origin="lower", aspect="auto", extent=box, cmap="gray")
        weight = maps[block].mean(dim=0).numpy()
        full = max(float(weight.max()), _CONTRAST * float(weight.mean()), 1e-12)
        axis.imshow(
            weight, origin="lower", aspect="auto", extent=cells, cmap="inferno", vmin=0.0, vmax=full,
            alpha=0.2 + 0.7 * weight / full, interpolation="nearest",
        )  # fmt: skip
        axis.set(xlim=box[:2], ylim=box[2:])
    if first:
        axes[0].set_title("picture (mel bins)", fontsize=9)
        axes[1].set_title("attention, first block", fontsize=9)
        axes[2].set_title(f"attention, last block ({last_block + 1})", fontsize=9)


def _numbers(evaluated: EvaluatedModel, label: str, index: int, maps: Tensor) -> dict[str, Any]:
    cycle = evaluated.cycles[index]
    flat = maps.flatten(2)  # [L, heads, H * W]
    share = flat / flat.sum(dim=2, keepdim=True).clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum(dim=2) / np.log(max(share.shape[2], 2))
    return {
        "label": label,
        "recording": cycle.recording_id,
        "start_s": cycle.start_s,
        "end_s": cycle.end_s,
        "probability": float(evaluated.probabilities[index, evaluated.truth[index]]),
        "predicted": evaluated.labels[int(evaluated.decisions[index])],
        "entropy": np.round(entropy.mean(dim=1).numpy().astype(float), 5).tolist(),  # of each block; 1 is uniform
        "on_patches": np.round(flat.sum(dim=2).mean(dim=1).numpy().astype(float), 5).tolist(),
        "first_block": np.round(maps[0].mean(dim=0).numpy().astype(float), 6).tolist(),
        "last_block": np.round(maps[-1].mean(dim=0).numpy().astype(float), 6).tolist(),
    }
