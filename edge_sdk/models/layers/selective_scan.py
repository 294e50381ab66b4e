"""The linear recurrence ``h[t] = a[t] * h[t-1] + b[t]``, ``h[-1] = 0``, in operations that any ONNX runtime supports.

State space models of one state per channel (VMamba, https://arxiv.org/abs/2401.10166) spend their time here. Every form
takes ``[..., L, D]`` with time on the second to last axis: a slice over time is then a block of D neighbours in memory.
L is a Python int; there is no loop node, no ``CumSum`` and no division, so decays that underflow to 0 stay harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

ScanForm = Literal["sequential", "doubling", "two_level", "chunked"]
Scan = Callable[[Tensor, Tensor], Tensor]

_UNROLL = 24  # lengths up to this are walked step by step: two small nodes a step
_CHUNK = 8  # measured best for ``chunked`` (benchmarks/studies/scan_forms.py): values stay in a core's cache


def sequential(decay: Tensor, drive: Tensor) -> Tensor:
    """Step by step: the reference, in whatever precision it is given.

    Parameters
    ----------
    decay, drive : Tensor
        ``a`` in [0, 1] and ``b``, both ``[..., L, D]``.

    Returns
    -------
    Tensor
        ``h [..., L, D]``.
    """
    state, *rest = drive.split(1, dim=-2)
    states = [state]
    for a, b in zip(decay.split(1, dim=-2)[1:], rest, strict=True):
        state = a * state + b
        states.append(state)
    return torch.cat(states, dim=-2)


def doubling(decay: Tensor, drive: Tensor) -> Tensor:
    """Hillis–Steele: log2(L) passes over everything, each joining spans of twice the length; shapes as `sequential`."""
    drive, _ = _doubled(decay, drive)
    return drive


def two_level(decay: Tensor, drive: Tensor, chunk: int = 32) -> Tensor:
    """Doubling within chunks of ``chunk`` steps and over their ends; one pass adds the states of earlier chunks.

    Shapes as `sequential`.
    """
    length = drive.shape[-2]
    decays, drives = _in_chunks(decay, chunk), _in_chunks(drive, chunk)  # [..., n, T, D]
    states, decays = _doubled(decays, drives)
    return _carry(states, decays, doubling)[..., :length, :]


def chunked(decay: Tensor, drive: Tensor) -> Tensor:
    """Step by step within short chunks, all chunks at once, and the same again over their ends; shapes as `sequential`.

    Work grows with L, not with L log L, and each step's operands are small enough for the cache. The default:
    over three times as fast as `two_level` at L = 6400 in ONNX Runtime on a CPU (``benchmarks/studies/scan_forms.py``).
    """
    length = drive.shape[-2]
    if length <= _UNROLL:
        return sequential(decay, drive)
    chunk = _chunk_length(length)
    decays = _in_chunks(decay, chunk).split(1, dim=-2)  # chunk × [..., n, 1, D]
    drives = _in_chunks(drive, chunk).split(1, dim=-2)
    state, product = drives[0], decays[0]
    states, products = [state], [product]
    for a, b in zip(decays[1:], drives[1:], strict=True):
        state, product = a * state + b, a * product
        states.append(state)
        products.append(product)
    whole = _carry(torch.cat(states, dim=-2), torch.cat(products, dim=-2), chunked)
    return whole if whole.shape[-2] == length else whole[..., :length, :]


def _doubled(decay: Tensor, drive: Tensor) -> tuple[Tensor, Tensor]:
    """States, and products of the decays since the start, along axis -2."""
    length, span = drive.shape[-2], 1
    while span < length:
        joined = drive[..., span:, :] + decay[..., span:, :] * drive[..., :-span, :]
        drive = torch.cat([drive[..., :span, :], joined], dim=-2)
        decay = torch.cat([decay[..., :span, :], decay[..., span:, :] * decay[..., :-span, :]], dim=-2)
        span *= 2
    return drive, decay


def _carry(states: Tensor, products: Tensor, over_ends: Scan) -> Tensor:
    """Chunks that each began at 0, ``[..., n, T, D]`` → one run ``[..., n * T, D]``."""
    ends = over_ends(products[..., -1, :], states[..., -1, :])  # [..., n, D]
    before = F.pad(ends[..., :-1, :], (0, 0, 1, 0)).unsqueeze(-2)  # state on entering each chunk
    return (states + products * before).flatten(-3, -2)


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """``[..., L, D]`` → ``[..., n, T, D]``; the padding of the last chunk is last in time and has no effect."""
    missing = -x.shape[-2] % chunk
    if missing:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(-2, (x.shape[-2] // chunk, chunk))


def _chunk_length(length: int) -> int:
    """A divisor of ``length`` near the best chunk, which spares the padding; the best chunk itself where none is."""
    return next((t for t in (8, 7, 9, 10, 6, 5, 11, 12) if length % t == 0), _CHUNK)


FORMS: dict[ScanForm, Scan] = {
    "sequential": sequential,
    "doubling": doubling,
    "two_level": two_level,
    "chunked": chunked,
}


class _Recurrence(torch.autograd.Function):
    """Any form with the recurrence's own gradient: another scan, backwards in time; nothing but h and a is kept."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, scan: Scan) -> Tensor:
        states = scan(decay, drive)
        ctx.save_for_backward(decay, states)
        ctx.scan = scan
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        decay, states = ctx.saved_tensors
        # dL/db[t] = g[t] + a[t+1] * dL/db[t+1]
        later = F.pad(decay[..., 1:, :], (0, 0, 0, 1))
        grad_drive = ctx.scan(later.flip(-2), grad.flip(-2)).flip(-2)
        grad_decay = grad_drive * F.pad(states[..., :-1, :], (0, 0, 1, 0))
        return grad_decay, grad_drive, None


def linear_scan(decay: Tensor, drive: Tensor, form: ScanForm = "chunked") -> Tensor:
    """``h[t] = decay[t] * h[t-1] + drive[t]`` along the second to last axis, from ``h[-1] = 0``.

    Parameters
    ----------
    decay : Tensor
        ``[..., L, D]`` in [0, 1]; zeros and strong decay are fine.
    drive : Tensor
        ``[..., L, D]``, same type.
    form : str
        One of `FORMS`; all agree to float32 rounding.

    Returns
    -------
    Tensor
        ``[..., L, D]``.

    Raises
    ------
    ValueError
        Unknown form, or shapes that differ.
    """
    if form not in FORMS:
        raise ValueError(f"scan form {form!r} does not exist; choose one of {', '.join(get_args(ScanForm))}")
    if decay.shape != drive.shape:
        raise ValueError(f"decay {tuple(decay.shape)} and drive {tuple(drive.shape)} must have the same shape")
    if torch.is_grad_enabled() and (decay.requires_grad or drive.requires_grad) and not torch.compiler.is_compiling():
        return _Recurrence.apply(decay, drive, FORMS[form])  # type: ignore[no-any-return]
    return FORMS[form](decay, drive)
