"""Exports in these tests share torch's table of ONNX functions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="package", autouse=True)
def one_registry() -> Iterator[None]:
    """``torch.onnx.export`` builds its table of functions anew each time: half of what a small network takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield
