"""Options of an engine build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROFILES = ((1, 1, 1), (1, 8, 64))
"""Batch sizes (lowest, best, highest): single cycles of a live stream, and batches of an archive."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built."""

    flavour: str = "auto"  # "tensorrt", "tensorrt-rtx", or whichever is installed
    precision: str = "fp32"  # "fp32", "fp16", "int8"
    baked: bool = True  # the ONNX file itself has this precision
    profiles: tuple[tuple[int, int, int], ...] = PROFILES
    workspace_mb: int | None = None  # scratch memory the engine may use; None: as much as the GPU has
    capabilities: tuple[str, ...] = ()  # RTX: build ahead of time for these, for example ("8.6",); no GPU needed
    hardware_compatible: str = ""  # "ampere": this and later GPUs; "same": GPUs of one compute capability
    version_compatible: bool = False  # runs on later TensorRT too, slower
    dla_core: int | None = None  # deep-learning accelerator of Jetson Xavier and Orin: CNNs in fp16 or int8
    cache: Path | None = None  # folder; the user's cache where absent
    force: bool = False  # build even if the cache has it

    def summary(self) -> str:
        """The options that change an engine beyond precision and profiles, as text for its key."""
        parts = [
            f"dla{self.dla_core}" if self.dla_core is not None else "",
            f"hardware-compatible:{self.hardware_compatible}" if self.hardware_compatible else "",
            "version-compatible" if self.version_compatible else "",
            "" if self.baked or self.precision == "fp32" else "builder-precision",
        ]
        return ",".join(part for part in parts if part)
