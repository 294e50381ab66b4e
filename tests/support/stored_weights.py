"""A network with the weights that its step graph holds: large ones are stored with 16 bits."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from export.onnx.step_builder import STORED_AS_HALF

N = TypeVar("N", bound=nn.Module)


def as_stored(folded: N, *exact: str) -> N:
    """The network, its batch norms folded, with every large weight but the exact ones rounded as in its graph."""
    for name, weight in folded.named_parameters():
        if weight.numel() >= STORED_AS_HALF and name not in exact:
            weight.data = weight.data.half().float()
    return folded
