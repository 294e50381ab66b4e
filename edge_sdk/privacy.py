"""Switches off what dependencies would send or keep: nothing leaves the machine unless a command is asked to send it.

ONNX Runtime from 1.27 on writes a device id and an event store into the user's cache folder and looks up a collector;
Ray, MLflow and Hugging Face report their use. All of them read the environment when they are first imported, and child
processes (workers, Ray actors, the process of a microphone) inherit it.
"""

from __future__ import annotations

import os

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Variable → value; set when ``edge_sdk`` is imported, whatever they were before."""


def switch_off_telemetry() -> None:
    """Set :data:`SWITCHES` in the environment of this process and its children."""
    os.environ.update(SWITCHES)
