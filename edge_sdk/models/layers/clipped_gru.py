"""A GRU with bounded memory: its gates are clipped before their sigmoid, like ONNX's ``clip`` attribute.

torch has no such operator. The recurrence and its gradient are written out: as fast as torch's own on a CPU, where
autograd through the loop would be several times slower.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Recurrence(torch.autograd.Function):
    """``gates [T, B, 3H]`` of the input, ``state [B, H]``, ``weight [3H, H]``, ``bias [3H]`` → ``[T, B, H]``."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, state: Tensor, weight: Tensor, bias: Tensor, clip: float) -> Tensor:
        hidden = state.shape[1]
        across = weight.t().contiguous()
        states, opened, renewed, owned = [state], [], [], []
        for gate in gates.unbind(0):
            own = torch.addmm(bias, state, across)
            both = (gate[:, : 2 * hidden] + own[:, : 2 * hidden]).clamp_(-clip, clip).sigmoid_()
            recurrent = own[:, 2 * hidden :]
            new = torch.addcmul(gate[:, 2 * hidden :], both[:, :hidden], recurrent).clamp_(-clip, clip).tanh_()
            state = torch.lerp(new, state, both[:, hidden:])
            states.append(state)
            opened.append(both)
            renewed.append(new)
            owned.append(recurrent)
        past = torch.stack(states)  # [T + 1, B, H]
        ctx.clip = clip
        ctx.save_for_backward(past, torch.stack(opened), torch.stack(renewed), torch.stack(owned), weight)
        return past[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        past, opened, renewed, owned, weight = ctx.saved_tensors
        (given,) = gradients
        hidden = past.shape[2]
        reset, keep = opened[..., :hidden], opened[..., hidden:]
        inside = (opened - 0.5).abs() < 0.5 * math.tanh(ctx.clip / 2.0) - 1e-7  # sigmoid is tanh, moved and halved
        slope = opened * (1.0 - opened) * inside
        to_new = (1.0 - keep) * (1.0 - renewed.square()) * (renewed.abs() < math.tanh(ctx.clip))
        to_keep = (past[:-1] - renewed) * slope[..., hidden:]
        to_reset = owned * slope[..., :hidden]
        inward = past.new_empty(*opened.shape[:2], 3 * hidden)  # of the input's gates
        across = torch.empty_like(inward)  # of the state's
        back = torch.zeros_like(past[0])
        for t in range(len(given) - 1, -1, -1):
            back = back + given[t]
            new = back * to_new[t]
            across[t, :, :hidden] = new * to_reset[t]
            across[t, :, hidden : 2 * hidden] = back * to_keep[t]
            across[t, :, 2 * hidden :] = new * reset[t]
            inward[t, :, 2 * hidden :] = new
            back = torch.addmm(back * keep[t], across[t], weight)
        inward[..., : 2 * hidden] = across[..., : 2 * hidden]
        flat = across.flatten(0, 1)
        return inward, back, flat.t() @ past[:-1].flatten(0, 1), flat.sum(dim=0), None


class ClippedGRU(nn.GRU):
    """One layer, one direction, ``[T, B, C]``; parameters are those of ``nn.GRU``.

    A gate that never closes fully lets every memory fade within about ``1 + exp(clip)`` frames: after a few times as
    many, the state of a stream of hours equals that of one that began a minute ago.

    Parameters
    ----------
    inputs, hidden
        C and H.
    clip
        Bound of the inputs of the sigmoids and the tanh.
    """

    def __init__(self, inputs: int, hidden: int, clip: float) -> None:
        super().__init__(inputs, hidden)
        self.clip = clip

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """``x [T, B, C]``, ``state [1, B, H]`` → ``[T, B, H]`` and the next state.

        The exported graph holds torch's own operator, to which the exporter of segmenters adds the clip.
        """
        if torch.compiler.is_exporting():
            own: tuple[Tensor, Tensor] = nn.GRU.forward(self, x, state)
            return own
        of_input, of_state, input_bias, state_bias = self.all_weights[0]
        y: Tensor = _Recurrence.apply(F.linear(x, of_input, input_bias), state[0], of_state, state_bias, self.clip)
        return y, y[-1:]
