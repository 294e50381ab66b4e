"""Effect of metadata inside a conditioned AST: SoftFiLM's masks, scale and shift per block, changed predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Conditioner, Metadata
from edge_sdk.models.inspect import factor_contributions, film_parameters, mask_report, metadata_swap
from edge_sdk.training.figures.attention import Picture, transformer_of
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.figures.page import COLOURS, DrawnFigure, NotApplicableError, new_page, scale

MOST = 512  # cycles whose modulation is averaged
MOST_SWAPPED = 128  # cycles that are predicted again under every name of a field


def soft_masks(evaluated: EvaluatedModel) -> DrawnFigure:
    """Each factor's share of each channel, sorted profiles, and how much they overlap."""
    ast, _ = transformer_of(evaluated.model)
    if not isinstance(ast.conditioner, Conditioner) or ast.conditioner.masks is None:
        raise NotApplicableError("only softfilm has masks")
    report = mask_report(ast)
    masks, overlap = report.masks.numpy(), report.overlap.numpy()
    figure, axes = new_page(1, 3, 12.0, 3.8, width_ratios=[2.2, 1.4, 1.0])
    heat, profile, square = axes[0]
    image = heat.imshow(masks, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    heat.set_yticks(range(len(report.factors)), report.factors)
    heat.set_xlabel("channel", fontsize=9)
    heat.set_title("share of each channel", fontsize=9)
    scale(figure, image, heat)
    for name, row, colour in zip(report.factors, masks, COLOURS, strict=False):
        profile.plot(np.sort(row)[::-1], color=colour, label=name, linewidth=1.4)
    profile.set(ylim=(0, 1.02))
    profile.set_xlabel("channels, largest first", fontsize=9)
    profile.set_title("profiles", fontsize=9)
    profile.legend(fontsize=8, frameon=False)
    square.imshow(overlap, cmap="viridis", vmin=0, vmax=max(float(overlap.max()), 1e-6))
    for row, column in np.ndindex(overlap.shape):
        dark = overlap[row, column] < 0.6 * overlap.max()
        square.text(column, row, f"{overlap[row, column]:.3f}", ha="center", va="center", fontsize=8,
                    color="white" if dark else "black")  # fmt: skip
    square.set_xticks(range(len(report.factors)), report.factors)
    square.set_yticks(range(len(report.factors)), report.factors)
    square.set_title("mean product over channels", fontsize=9)
    numbers: dict[str, Any] = {
        "factors": list(report.factors),
        "masks": _rounded(report.masks),
        "overlap": _rounded(report.overlap, 6),
        "coverage": report.coverage,
        "start_agreement": report.start_agreement,
        "temperature": float(ast.conditioner.masks.tau),
    }
    note = f"coverage {report.coverage:.3f}"
    if report.start_agreement is not None:
        note += f"; {report.start_agreement:.0%} of channels still belong to their first factor"
    return DrawnFigure(figure, numbers, note)


@torch.no_grad()
def film(evaluated: EvaluatedModel) -> DrawnFigure:
    """Size of scale and shift per block, by factor or token group, and the change under another name."""
    ast, picture_of = transformer_of(evaluated.model)
    chosen = evaluated.spread(MOST)
    metadata = evaluated.metadata(chosen)
    if ast.conditioner is None or metadata is None:
        raise NotApplicableError("the model reads no metadata")
    parameters = film_parameters(ast, metadata)
    if not parameters:
        raise NotApplicableError("grf adds to the embedding; it has no scale and shift per block")
    curves = _curves(ast, metadata)
    swaps = _swaps(evaluated, ast, picture_of)
    panels = 3 if swaps else 2
    figure, axes = new_page(1, panels, 4.3 * panels, 3.9)
    for axis, which, title in (
        (axes[0, 0], "gamma", "change of scale, RMS of γ − 1"),
        (axes[0, 1], "beta", "shift, RMS of β"),
    ):
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            axis.plot(curve["blocks"], curve[which], "o-", color=colour, label=name, markersize=3, linewidth=1.2)
            axis.plot(curve["blocks"], curve[f"{which}_between"], ":", color=colour, linewidth=1.2)
        axis.set(ylim=(0, None))
        axis.set_xticks(curves[next(iter(curves))]["blocks"])
        axis.set_xlabel("block", fontsize=9)
        axis.set_title(title, fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    if swaps:
        _draw_swaps(axes[0, 2], swaps)
    numbers = {
        "conditioning": ast.conditioner.settings.kind,
        "averaged_over": len(chosen),
        "curves": curves,
        "swaps": swaps,
    }
    return DrawnFigure(
        figure, numbers, "dotted: the part that differs between breaths; the rest is the same for everyone"
    )


def _curves(ast: Ast, metadata: Metadata) -> dict[str, dict[str, Any]]:
    """RMS of γ − 1 and β per block: of each factor (softfilm), else of each token group."""
    blocks = list(ast.conditioned)
    if isinstance(ast.conditioner, Conditioner) and ast.conditioner.masks is not None:
        parts = factor_contributions(ast, metadata)  # [B, Lc, G, 2, D] each
        return {name: _curve(blocks, part[:, :, :, 0], part[:, :, :, 1]) for name, part in parts.items()}
    found = film_parameters(ast, metadata)
    gamma = torch.stack([part.gamma - 1.0 for part in found], dim=1)  # [B, Lc, G, D]
    beta = torch.stack([part.beta for part in found], dim=1)
    groups = ("class tokens", "patches") if gamma.shape[2] == 2 else ("all tokens",)
    return {
        name: _curve(blocks, gamma[:, :, index : index + 1], beta[:, :, index : index + 1])
        for index, name in enumerate(groups)
    }


def _curve(blocks: list[int], gamma: Tensor, beta: Tensor) -> dict[str, Any]:
    """``[B, Lc, G, D]`` → RMS per block, and RMS of the deviation from the mean over cycles."""
    curve: dict[str, Any] = {"blocks": [block + 1 for block in blocks]}
    for name, values in (("gamma", gamma), ("beta", beta)):
        curve[name] = _rms(values)
        curve[f"{name}_between"] = _rms(values - values.mean(dim=0, keepdim=True))
    return curve


def _rms(values: Tensor) -> list[float]:
    return [float(x) for x in values.double().square().mean(dim=(0, 2, 3)).sqrt()]


def _swaps(evaluated: EvaluatedModel, ast: Ast, picture_of: Picture) -> dict[str, dict[str, float]]:
    """Mean absolute change of the probabilities when a field of all cycles becomes each name, UNKNOWN included."""
    schema = evaluated.checkpoint.metadata_schema
    chosen = evaluated.spread(MOST_SWAPPED)
    metadata = evaluated.metadata(chosen)
    if schema is None or metadata is None or not schema.categorical:
        return {}
    picture = picture_of(evaluated.features(chosen))
    return {
        field: {
            name: float(metadata_swap(ast, picture, metadata, field, index).abs().mean())
            for index, name in enumerate(("unknown", *names))
        }
        for field, names in schema.categorical.items()
    }


def _draw_swaps(axis: Any, swaps: dict[str, dict[str, float]]) -> None:
    names, values, colours = [], [], []
    for (field, row), colour in zip(swaps.items(), COLOURS, strict=False):
        for name, value in row.items():
            names.append(f"{field} → {name}")
            values.append(value)
            colours.append(colour)
    axis.barh(range(len(names)), values, color=colours)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("mean |Δp|", fontsize=9)
    axis.set_title("prediction changed by another name", fontsize=9)


def _rounded(values: Tensor, digits: int = 5) -> list[Any]:
    rounded: list[Any] = np.round(values.double().numpy(), digits).tolist()
    return rounded
