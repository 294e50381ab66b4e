"""Spatial frequencies of the feature maps, stage by stage: the curve of Lung-SRAD's analysis.

Low-pass networks fall steeply; a Gaussian at a stage appears as the distance between dashed (before) and full lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.models.compact import Compact
from edge_sdk.models.dass import Dass
from edge_sdk.models.layers.ast_encoder import TOKENS
from edge_sdk.models.layers.spectral import spectral_response
from edge_sdk.models.mri_net import MriNet
from edge_sdk.training.figures.attention import transformer_of
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.figures.page import FAINT, DrawnFigure, NotApplicableError, new_page

MOST = 64  # cycles whose maps are averaged

Maps = dict[str, Tensor]
"""Name of a stage → ``[B, C, H, W]``, in order of the network."""


@torch.no_grad()
def response(evaluated: EvaluatedModel) -> DrawnFigure:
    """A curve per block or stage, relative to its own lowest frequency."""
    chosen = evaluated.spread(MOST)
    after, before = stage_maps(evaluated, chosen)
    curves = {name: _curve(maps) for name, maps in after.items()}
    smoothed = {name: _curve(maps) for name, maps in before.items()}
    drawn = {name: curve for name, curve in curves.items() if curve is not None}
    if not drawn:
        raise NotApplicableError("its maps are of a single cell and have no spatial frequencies")
    figure, axes = new_page(1, 1, 6.2, 4.6)
    axis = axes[0, 0]
    from matplotlib import colormaps

    shades = colormaps["viridis"]
    axis.axhline(0.0, color=FAINT, linewidth=0.8)
    for index, (name, curve) in enumerate(drawn.items()):
        colour = shades(0.9 * index / max(len(drawn) - 1, 1))
        axis.plot(curve["radius"], curve["log_amplitude"], "-", color=colour, linewidth=1.5, label=name)
        earlier = smoothed.get(name)
        if earlier is not None:
            label = f"{name}, before the Gaussian"
            axis.plot(earlier["radius"], earlier["log_amplitude"], "--", color=colour, linewidth=1.2, label=label)
    axis.set(xlim=(0, 1))
    axis.set_xlabel("spatial frequency (1 = Nyquist of each axis)", fontsize=9)
    axis.set_ylabel("ln amplitude, relative to the lowest", fontsize=9)
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    numbers = {
        "averaged_over": len(chosen),
        "after": drawn,
        "before_gaussian": {name: curve for name, curve in smoothed.items() if curve is not None},
        "maps": {name: list(maps.shape[1:]) for name, maps in after.items()},
    }
    return DrawnFigure(figure, numbers, f"mean amplitude over channels and {len(chosen)} breaths")


def _curve(maps: Tensor) -> dict[str, Any] | None:
    with suppress(ValueError):  # a single cell
        radius, curve = spectral_response(maps)
        return {"radius": [float(x) for x in radius], "log_amplitude": [float(x) for x in curve]}
    return None


def stage_maps(evaluated: EvaluatedModel, chosen: list[int]) -> tuple[Maps, Maps]:
    """Outputs of the stages, and their inputs to a Gaussian where they have one.

    Raises
    ------
    NotApplicableError
        A network whose stages are not listed here.
    """
    model, features = evaluated.model, evaluated.features(chosen)
    if isinstance(model, Dass):
        with _watched(dict(model.blends.items())) as seen:
            after = {f"stage {k}": maps for k, maps in enumerate(model.stage_maps(features), start=1)}
        return after, {f"stage {name}": before for name, (before, _) in seen.items()}
    if isinstance(model, Compact):
        with _watched({f"stage {k}": stage for k, stage in enumerate(model.stages, start=1)}) as seen:
            model(features)
        return {name: after for name, (_, after) in seen.items()}, {}
    if isinstance(model, MriNet):
        picture = model.picture(features)
        # before its norm, which removes the mean that the curve is relative to
        frequency = model.interlaced(picture.transpose(2, 3)).transpose(2, 3)
        return {"interlaced": frequency, "Swin": model.branches(picture)[1], "fused": model.fused(features)}, {}
    ast, picture_of = transformer_of(model)
    blocks = {f"block {k}": block for k, block in enumerate(ast.encoder.blocks, start=1)}
    with _watched({"patches": ast.encoder.patch_embed, **blocks}) as seen:
        ast(picture_of(features), evaluated.metadata(chosen))
    grid = seen.pop("patches")[1]
    size = (grid.shape[2], grid.shape[3])
    return {name: x[:, TOKENS:].transpose(1, 2).unflatten(2, size) for name, (_, x) in seen.items()}, {}


@contextmanager
def _watched(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """First input and output of each module in the forward passes within the block."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_of(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = (inputs[0], output)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
