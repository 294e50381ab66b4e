"""Resampling of a picture by constant matrices: equals ``F.interpolate``, in operators that every engine has."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Interpolation = Literal["bilinear", "bicubic"]


def interpolation_matrix(source: int, target: int, kind: Interpolation, *, align_corners: bool) -> Tensor:
    """``[target, source]`` float64 matrix that resamples one axis as ``F.interpolate`` does.

    Interpolation is linear in the samples and separable, so its response to the unit vectors is the whole operation.
    """
    unit = torch.eye(source, dtype=torch.float64)[None, None]  # rows: resampled axis; columns: one unit vector each
    return F.interpolate(unit, size=(target, source), mode=kind, align_corners=align_corners)[0, 0]


class MatrixResize(nn.Module):
    """``[B, 1, M, T]`` → ``[B, 1, M', T']`` by one constant matrix per axis; an axis that keeps its length has none.

    Parameters
    ----------
    source, target : tuple of int
        ``(M, T)`` and ``(M', T')``.
    kind, align_corners
        As in ``torch.nn.functional.interpolate``.
    """

    over_mel: Tensor | None  # [M', M]
    over_time: Tensor | None  # [T, T'], applied from the right

    def __init__(
        self, source: tuple[int, int], target: tuple[int, int], kind: Interpolation, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.source, self.target = source, target
        matrices = [
            None if old == new else interpolation_matrix(old, new, kind, align_corners=align_corners).float()
            for old, new in zip(source, target, strict=True)
        ]
        self.register_buffer("over_mel", matrices[0], persistent=False)
        self.register_buffer("over_time", None if matrices[1] is None else matrices[1].T.clone(), persistent=False)

    def check(self, picture: Tensor) -> None:
        """Check the size of a picture ``[B, 1, M, T]``.

        Raises
        ------
        ValueError
            Another size than the matrices were built for.
        """
        if tuple(picture.shape[2:]) != self.source:
            raise ValueError(
                f"the model was built for pictures of {self.source[0]} mel x {self.source[1]} frames and got "
                f"{picture.shape[2]} x {picture.shape[3]}; build it with the front end that makes the features"
            )

    def forward(self, picture: Tensor) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, 1, M', T']`` in float32, under autocast too; ``ValueError`` for another picture."""
        self.check(picture)
        with full_precision(picture):
            picture = picture.float()
            if self.over_time is not None:
                picture = picture @ self.over_time  # [B, 1, M, T']
            if self.over_mel is not None:
                picture = self.over_mel @ picture  # [B, 1, M', T']
        return picture


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Context without autocast on the device of ``like``, for arithmetic that needs more than bfloat16."""
    device = like.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return nullcontext()  # meta tensors know no autocast, and an exported graph stays free of the switch
    return torch.autocast(device, enabled=False)
