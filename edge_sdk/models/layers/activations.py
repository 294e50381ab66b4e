"""Activations that an exported graph runs fast in ONNX Runtime; in torch eager they are torch's own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def gelu(x: Tensor) -> Tensor:
    """Exact GELU, any shape; unlike the exporter's own form, ONNX Runtime fuses this one to one kernel."""
    if not torch.compiler.is_compiling():
        return F.gelu(x)
    return 0.5 * (x * (torch.erf(x / math.sqrt(2.0)) + 1.0))


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` without overflow, any shape, in half precision too.

    ONNX Runtime's own Softplus took over a quarter of a whole state space network's time. The exported form passes five
    times through memory; ``log(1 + exp(-|x|))`` spelled out would pass seven times.
    """
    if not torch.compiler.is_compiling():
        return F.softplus(x)
    return torch.relu(x) - torch.log(torch.sigmoid(x.abs()))


class Gelu(nn.Module):
    """`gelu` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same."""
        return gelu(x)
