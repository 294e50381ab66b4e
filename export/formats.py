"""The table of artefact formats; command-line help, docs, export and benchmarks all read it."""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.errors import ExportError


@dataclass(frozen=True, slots=True)
class Gate:
    """What an artefact must hold on real cycles, against the torch model in fp32, to be called verified."""

    max_relative_error: float  # ||logits - reference|| / ||reference||
    min_agreement: float  # share of cycles with the same decision
    max_auroc_drop: float  # AUROC of the reference minus AUROC of the artefact
    max_score_drop: float  # strict Score of the reference minus that of the artefact, share


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of artefact a bundle can hold."""

    name: str  # as given to ``--formats``
    file: str  # name inside the bundle
    precision: str  # of weights and activations in the network; the front end stays fp32
    devices: str  # where it is meant to run
    description: str
    gate: Gate
    golden_tolerance: float  # absolute, on logits: another CPU may round differently
    needs_calibration: bool = False


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name="onnx-fp32",
            file="classifier.fp32.onnx",
            precision="fp32",
            devices="any CPU or GPU with ONNX Runtime",
            description="the reference: pcm → logits, front end folded into one Conv1d",
            gate=Gate(max_relative_error=1e-3, min_agreement=0.999, max_auroc_drop=1e-4, max_score_drop=1e-3),
            golden_tolerance=2e-3,
        ),
        Format(
            name="onnx-int8-cpu",
            file="classifier.int8.onnx",
            precision="int8",
            devices="x86-64 and ARM CPUs with ONNX Runtime",
            description="static U8S8 Q/DQ per channel; front end, normalisation and head stay fp32",
            gate=Gate(max_relative_error=0.15, min_agreement=0.97, max_auroc_drop=0.005, max_score_drop=0.01),
            golden_tolerance=0.5,
            needs_calibration=True,
        ),
    )
}

DEFAULT_FORMATS: tuple[str, ...] = ("onnx-fp32", "onnx-int8-cpu")


def parse_formats(names: str | None) -> list[Format]:
    """Formats from a comma-separated list; ``None`` gives the default ones.

    Raises
    ------
    ExportError
        A name is not in the table.
    """
    wanted = [n.strip() for n in names.split(",") if n.strip()] if names else list(DEFAULT_FORMATS)
    unknown = [n for n in wanted if n not in FORMATS]
    if unknown or not wanted:
        raise ExportError(f"unknown format {', '.join(unknown) or '(none given)'}; known: {', '.join(FORMATS)}")
    return [FORMATS[n] for n in dict.fromkeys(wanted)]
