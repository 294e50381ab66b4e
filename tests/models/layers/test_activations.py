"""The spellings meant for export are the functions themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.models.layers import activations as fused


@pytest.mark.parametrize(("ours", "theirs"), [(fused.gelu, F.gelu), (fused.softplus, F.softplus)])
@pytest.mark.parametrize("exporting", [False, True])
def test_values_are_torch_s_own_from_underflow_to_overflow(
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Tensor], Tensor],
    exporting: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: exporting)
    x = torch.cat([torch.linspace(-30, 30, 6001), torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4])])
    torch.testing.assert_close(ours(x), theirs(x), atol=2e-6, rtol=1e-6)
    assert torch.isfinite(ours(x.half())).all()
