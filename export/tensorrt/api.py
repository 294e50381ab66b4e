"""TensorRT 8.6 to 11 and TensorRT-RTX as one API: ``hasattr`` finds what a release offers, not its number.

Release 11 has no FP16 and INT8 flags, release 10 made explicit batch the only kind, and strong typing moved precision
into the graph. This module decides what the builder asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_sdk.errors import EngineError, ExportError
from edge_sdk.runtime.engines.tensorrt import installed_flavours, load_module
from export.formats import ReportStep

_log = logging.getLogger(__name__)
_SHOWN_ERRORS = 10


@dataclass(frozen=True, slots=True)
class TrtApi:
    """An imported TensorRT and its flavour."""

    module: Any
    flavour: str  # "tensorrt" or "tensorrt-rtx"

    @property
    def version(self) -> str:
        """Version of the imported module."""
        return str(self.module.__version__)

    @property
    def title(self) -> str:
        """Name and version for messages."""
        return f"{'TensorRT-RTX' if self.flavour == 'tensorrt-rtx' else 'TensorRT'} {self.version}"

    def member(self, group: str, name: str) -> Any:
        """A member of an enum, or ``None`` where this release has no such enum or member."""
        return getattr(getattr(self.module, group, None), name, None)


def find_api(flavour: str = "auto") -> TrtApi:
    """The installed TensorRT of a flavour; ``auto`` prefers ``tensorrt`` to ``tensorrt-rtx``.

    Raises
    ------
    ExportError
        The flavour is not installed or cannot be imported.
    """
    installed = installed_flavours()
    if not installed:
        raise ExportError(
            "TensorRT is not installed; run 'pip install \"stethoscope-edge-sdk[tensorrt]\"' (on Jetson it comes with "
            "JetPack: make the environment with --system-site-packages)"
        )
    wanted = installed[0] if flavour == "auto" else flavour
    if wanted not in installed:
        raise ExportError(f"{wanted} is not installed (installed: {', '.join(installed)}); install its extra")
    try:
        return TrtApi(load_module(wanted), wanted)
    except EngineError as error:
        raise ExportError(str(error)) from error


def make_logger(api: TrtApi, progress: ReportStep) -> tuple[Any, list[str]]:
    """A logger, and the list of errors it fills; it reports progress for releases without a progress monitor."""
    errors: list[str] = []
    base: Any = getattr(api.module, "ILogger", None)
    if base is None:
        return api.module.Logger(api.module.Logger.WARNING), errors
    has_monitor = hasattr(api.module, "IProgressMonitor")

    class _Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            name = getattr(severity, "name", str(severity))
            if name in ("ERROR", "INTERNAL_ERROR"):
                errors.append(message.strip())
            elif name == "INFO" and not has_monitor:
                progress(message.strip())
            _log.debug("%s: %s", name, message)

    return _Logger(), errors


@dataclass(slots=True)
class BuildMonitor:
    """Progress of a build, and whether it was interrupted."""

    native: Any = None  # for the builder's configuration; None where the release has no monitors
    interrupted: bool = False


def make_monitor(api: TrtApi, progress: ReportStep) -> BuildMonitor:
    """A monitor that reports each phase and its percentage; Ctrl-C stops the build at the next step."""
    monitor = BuildMonitor()
    base: Any = getattr(api.module, "IProgressMonitor", None)
    if base is None:
        return monitor

    class _Native(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, tuple[int, int]] = {}  # phase → number of steps, last reported quarter

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = (num_steps, 0)
            if not parent_phase:
                self._report(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            total, reported = self._steps.get(phase_name, (0, 0))
            quarter = 4 * (step + 1) // total if total >= 8 else 0
            if quarter > reported:
                self._steps[phase_name] = (total, quarter)
                self._report(f"{phase_name}: {25 * quarter} %")
            return not monitor.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def _report(self, text: str) -> None:
            try:
                progress(text)
            except KeyboardInterrupt:  # must not cross C++; the builder stops at the next step instead
                monitor.interrupted = True

    monitor.native = _Native()
    return monitor


def network_flags(api: TrtApi, *, typed: bool) -> int:
    """Flags of ``create_network``: explicit batch and strong typing, where the release has them."""
    flags = 0
    names = ("EXPLICIT_BATCH", "STRONGLY_TYPED") if typed else ("EXPLICIT_BATCH",)
    for name in names:
        if (member := api.member("NetworkDefinitionCreationFlag", name)) is not None:
            flags |= 1 << int(member)
    return flags


def precision_flags(api: TrtApi, precision: str, *, baked: bool) -> list[Any]:
    """Builder flags for a precision; none where the graph holds it and this release reads it from the graph.

    Parameters
    ----------
    api
        TensorRT to build with.
    precision
        ``fp32``, ``fp16`` or ``int8``.
    baked
        The ONNX file itself has this precision: fp16 tensors, or Q/DQ nodes.

    Raises
    ------
    ExportError
        The precision is not in the graph and this release has no flag for it.
    """
    if precision == "fp32" or (baked and api.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") is not None):
        return []
    if precision == "int8" and not baked:
        raise ExportError("int8 needs its scales in the graph: compile the artefact onnx-int8-trt")
    names = ("FP16",) if precision == "fp16" else ("INT8", "FP16")
    found = [api.member("BuilderFlag", name) for name in names]
    if None in found:
        raise ExportError(
            f"{api.title} takes precision from the graph and has no {names[0]} flag: "
            f"compile the artefact onnx-{precision}{'-trt' if precision == 'int8' else ''}"
        )
    return found


def parser_errors(parser: Any) -> list[str]:
    """The nodes that the ONNX parser refuses, a line each: name, operator, reason."""
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"  # 8.6 has only a number
        operator = error.node_operator() if hasattr(error, "node_operator") else "?"
        reason = " ".join(error.desc().split()).split(" [checkMacros")[0]  # follows from the missing GPU
        lines.append(f"node {name or '?'} ({operator}): {reason}")
    return lines


def shorten(lines: Sequence[str]) -> str:
    """The first lines, and the number of the others."""
    unique = list(dict.fromkeys(lines))
    more = len(unique) - _SHOWN_ERRORS
    return "; ".join(unique[:_SHOWN_ERRORS]) + (f"; and {more} more" if more > 0 else "")
