"""ONNX Runtime, imported here and nowhere else: without telemetry, without lines of its own on stderr.

>>> from edge_sdk.runtime.engines.library import onnxruntime
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edge_sdk.privacy import switch_off_telemetry

switch_off_telemetry()  # again: a caller may have changed the environment since edge_sdk was imported

import onnxruntime  # noqa: E402

_ERRORS_ONLY = 3

if hasattr(onnxruntime, "disable_telemetry_events"):  # for those who imported it before edge_sdk
    onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(_ERRORS_ONLY)

__all__ = ["onnxruntime", "onnxruntime_part"]


def onnxruntime_part(name: str) -> Any:
    """Import a submodule, for example ``quantization``."""
    return import_module(f"onnxruntime.{name}")
