"""Options of an engine build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import ExportError

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
    dla_core: int | None = None  # deep-learning accelerator of Jetson Xavier and Orin: CNNs in fp16
    cache: Path | None = None  # folder; the user's cache where absent
    force: bool = False  # build even if the cache has it

    @property
    def built_profiles(self) -> tuple[tuple[int, int, int], ...]:
        """Profiles that are built: DLA takes one, and of one batch size.

        Raises
        ------
        ExportError
            Other profiles were asked for on DLA.
        """
        if self.dla_core is None:
            return self.profiles
        if self.profiles == PROFILES:
            return PROFILES[:1]  # single cycles of a live stream
        if len(self.profiles) != 1 or len(set(self.profiles[0])) != 1:
            raise ExportError("DLA takes one fixed batch: give --batch 1-1-1 or another with three equal numbers")
        return self.profiles

    def summary(self) -> str:
        """The options that change an engine beyond precision and profiles, as text for its key."""
        parts = [
            f"dla{self.dla_core}" if self.dla_core is not None else "",
            f"hardware-compatible:{self.hardware_compatible}" if self.hardware_compatible else "",
            "version-compatible" if self.version_compatible else "",
            f"workspace{self.workspace_mb}" if self.workspace_mb is not None else "",
            "" if self.baked or self.precision == "fp32" else "builder-precision",
        ]
        return ",".join(part for part in parts if part)
