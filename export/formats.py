"""The table of artefact formats: command-line help, README, export, benchmarks and option checks use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_sdk.errors import ExportError

ReportStep: TypeAlias = Callable[[str], None]
"""Receives a line of text for each step of a build."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits that a verified artefact keeps on real cycles, against the torch model in fp32."""

    max_relative_error: float  # ||logits - reference|| / ||reference||
    min_agreement: float  # share of cycles with the same decision
    max_auroc_drop: float  # AUROC of the reference minus AUROC of the artefact
    max_score_drop: float  # strict Score of the reference minus that of the artefact, share
    max_auroc_drop_high: float = 0.01  # upper end of the 95 % interval of the AUROC drop


@dataclass(frozen=True, slots=True)
class ArtefactFormat:
    """A kind of artefact: a file in the bundle, or something that is made from a finished bundle.

    ``builder`` is ``module:function``, imported when it is needed. For a file in the bundle it is called with
    ``(row: ArtefactFormat, request: export.onnx.build.BuildRequest)`` and returns a ``features → logits`` graph. For
    something made from a finished bundle it is called with ``(bundle: Path, progress: ReportStep)`` and returns the
    paths that it wrote.
    """

    name: str  # as given to ``--formats``
    file: str  # name inside the bundle; suffix where it is made from a bundle
    precision: str  # of weights and activations in the network; the front end stays fp32
    devices: str  # where it runs
    description: str
    builder: str
    gate: Gate = Gate(max_relative_error=1e-3, min_agreement=0.999, max_auroc_drop=1e-4, max_score_drop=1e-3)
    golden_tolerance: float = 2e-3  # absolute, on logits: another CPU may round differently
    needs_calibration: bool = False
    tensorrt: bool = True  # whether TensorRT must be able to parse it
    made_from: Literal["checkpoint", "bundle"] = "checkpoint"
    default: bool = False  # made unless --formats says otherwise
    graph_builder: str = ""  # ``features → logits`` in fp32 → the same in this format; empty: needs the checkpoint

    @property
    def from_graph(self) -> bool:
        """Whether it can be made from a bundle's fp32 graph, without the checkpoint."""
        return bool(self.graph_builder)

    @property
    def features_file(self) -> str:
        """Name of the graph without front end, which ``--features-graph`` writes."""
        return self.file.replace(".onnx", ".features.onnx")


_INT8 = Gate(max_relative_error=0.15, min_agreement=0.98, max_auroc_drop=0.005, max_score_drop=0.01)

FORMATS: dict[str, ArtefactFormat] = {
    f.name: f
    for f in (
        ArtefactFormat(
            name="onnx-fp32",
            file="classifier.fp32.onnx",
            precision="fp32",
            devices="any CPU or GPU with ONNX Runtime; TensorRT",
            description="the reference: pcm → logits, front end folded into one Conv1d",
            builder="export.onnx.build:fp32",
            default=True,
        ),
        ArtefactFormat(
            name="onnx-int8-cpu",
            file="classifier.int8.onnx",
            precision="int8",
            devices="x86-64 and ARM CPUs with ONNX Runtime",
            description="7-bit weights, dynamic S8 (transformers) or static U8S8 (CNNs); front end and head stay fp32",
            builder="export.onnx.build:int8_cpu",
            gate=_INT8,
            golden_tolerance=0.5,
            needs_calibration=True,
            tensorrt=False,
            default=True,
        ),
        ArtefactFormat(
            name="onnx-fp16",
            file="classifier.fp16.onnx",
            precision="fp16",
            devices="GPUs with ONNX Runtime or TensorRT; slower than fp32 on CPUs",
            description="inputs, outputs, front end, norms and softmax stay fp32",
            builder="export.onnx.build:fp16",
            gate=Gate(
                max_relative_error=1e-2,
                min_agreement=0.995,
                max_auroc_drop=1e-3,
                max_score_drop=5e-3,
                max_auroc_drop_high=2e-3,
            ),
            golden_tolerance=5e-2,
            graph_builder="export.onnx.build:half_precision",
        ),
        ArtefactFormat(
            name="onnx-int8-trt",
            file="classifier.int8-trt.onnx",
            precision="int8",
            devices="NVIDIA GPUs with TensorRT",
            description="symmetric S8 Q/DQ around linear layers and convolutions, bias in float",
            builder="export.onnx.build:int8_trt",
            gate=_INT8,
            golden_tolerance=0.5,
            needs_calibration=True,
        ),
        ArtefactFormat(
            name="engine",
            file=".engine",
            precision="of its ONNX",
            devices="the NVIDIA GPU that it is built on",
            description="TensorRT engine from the bundle's ONNX, kept in the engine cache",
            builder="export.tensorrt.builder:build_engine_format",
            made_from="bundle",
        ),
        ArtefactFormat(
            name="triton",
            file="-triton",
            precision="of its ONNX",
            devices="Triton Inference Server",
            description="model repository beside the bundle: dynamic batching, PCM → label",
            builder="export.triton.repository:build_repository_format",
            made_from="bundle",
        ),
    )
}

DEFAULT_FORMATS: tuple[str, ...] = tuple(name for name, row in FORMATS.items() if row.default)


def parse_formats(names: str | Sequence[str] | None) -> list[ArtefactFormat]:
    """Formats from a list, comma-separated or not; ``None`` gives the default ones.

    Raises
    ------
    ExportError
        A name is not in the table, or all formats in the list are made from a bundle.
    """
    listed = names.split(",") if isinstance(names, str) else list(names or DEFAULT_FORMATS)
    wanted = [n.strip() for n in listed if n.strip()]
    unknown = [n for n in wanted if n not in FORMATS]
    if unknown or not wanted:
        raise ExportError(f"unknown format {', '.join(unknown) or '(none given)'}; choose from {', '.join(FORMATS)}")
    chosen = [FORMATS[n] for n in dict.fromkeys(wanted)]
    if all(f.made_from == "bundle" for f in chosen):
        raise ExportError(
            f"{chosen[0].name} is made from a bundle's ONNX: add an ONNX format, for example onnx-fp32,{chosen[0].name}"
        )
    return chosen


def formats_help() -> str:
    """One line for ``--help``."""
    defaults = ", ".join(DEFAULT_FORMATS)
    names = ", ".join(FORMATS)
    return f"Artefact formats, comma-separated, out of {names} (default: {defaults}; onnx-fp32 without a corpus)."


def formats_table() -> str:
    """The table as Markdown, for the README."""
    rows = ["| format | precision | runs on | what it is |", "|---|---|---|---|"]
    rows += [f"| `{f.name}` | {f.precision} | {f.devices} | {f.description} |" for f in FORMATS.values()]
    return "\n".join(rows)
