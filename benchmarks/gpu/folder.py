"""The packed folder: graphs of every model, their inputs and torch's logits, so that the GPU machine needs neither.

``stetho bench gpu --pack FOLDER`` makes it where torch is installed; without one the default bundle alone is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.core.roofline import count_macs
from edge_sdk.errors import StethoError
from edge_sdk.runtime.bundle.load import checked_file, read_manifest, resolve_bundle
from edge_sdk.runtime.bundle.manifest import front_end, metadata_schema
from edge_sdk.runtime.engines.onnx import OrtEngine

INDEX = "gpu-bench.json"
LARGE = (("ast", "base"), ("lung-srad", "small"))  # AST-base and DASS-small beside the shipped compact network
_REFERENCE_BATCH = 2

OnStep = Callable[[str], None]


class GpuSubject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A graph to measure."""

    name: str
    precision: str  # fp32, fp16 or bf16, in the graph
    file: str  # of the folder; absolute for a bundle
    rows: dict[str, tuple[str, list[int]]]  # input → type, shape of a row
    macs: int  # of one cycle
    reference: str | None = None  # file of inputs and torch's logits
    parity_only: bool = False  # a tiny model: compared with torch, not timed

    def inputs(self, batch: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Noise at the level of breath sounds, metadata unknown."""
        rng = np.random.default_rng(seed)
        found: dict[str, npt.NDArray[Any]] = {}
        for name, (kind, row) in self.rows.items():
            shape = (batch, *row)
            noise = 0.05 * rng.standard_normal(shape) if name == "pcm" else np.zeros(shape)
            found[name] = noise.astype(kind)
        return found


def bundle_subjects(bundle: str) -> list[GpuSubject]:
    """The fp32 and fp16 artefacts of a bundle."""
    folder = resolve_bundle(bundle)
    manifest = read_manifest(folder)
    found = []
    for entry in manifest.artefacts:
        if entry.precision not in ("fp32", "fp16"):
            continue
        path = checked_file(folder, entry)
        rows: dict[str, tuple[str, list[int]]] = {entry.input: ("float32", [front_end(folder, entry).window_samples])}
        schema = metadata_schema(folder, manifest)
        if schema is not None:
            rows |= {n: (str(v.dtype), list(v.shape[1:])) for n, v in schema.encode([{}]).items()}
        subject = GpuSubject(name=manifest.name, precision=entry.precision, file=str(path), rows=rows, macs=0)
        found.append(msgspec.structs.replace(subject, macs=count_macs(path, subject.inputs(1))))
    if not found:
        raise StethoError(
            f"bundle {bundle} has no fp32 or fp16 artefact to measure on a GPU; export one with --formats"
        )
    return found


def read_folder(folder: Path) -> list[GpuSubject]:
    """Read the index of a packed folder; its files get absolute paths.

    Raises
    ------
    StethoError
        The folder is none of ``--pack``.
    """
    try:
        found = msgspec.json.decode((folder / INDEX).read_bytes(), type=list[GpuSubject])
    except (OSError, msgspec.DecodeError) as error:
        raise StethoError(f"{folder} is no packed folder ({error}); make one with 'stetho bench gpu --pack'") from error
    replace = msgspec.structs.replace
    return [
        replace(s, file=str(folder / s.file), reference=None if s.reference is None else str(folder / s.reference))
        for s in found
    ]


def pack(folder: Path, on_step: OnStep, *, quick: bool = False) -> list[GpuSubject]:
    """Write the folder; needs torch and the export side.

    Raises
    ------
    StethoError
        The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StethoError(f"cannot write {folder} ({error.strerror}); give another folder") from error
    subjects = [s for step in _steps(quick=quick) for s in _packed(folder, *step, on_step)]
    for subject in bundle_subjects("default"):
        name = Path(subject.file).name
        (folder / name).write_bytes(Path(subject.file).read_bytes())
        subjects.append(msgspec.structs.replace(subject, file=name))
    (folder / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(subjects), indent=1) + b"\n")
    return subjects


def _steps(*, quick: bool) -> Iterator[tuple[str, str, bool]]:
    from benchmarks.core.exported import RECIPES

    if quick:
        yield "standard", "tiny", True
        return
    yield from ((name, "tiny", True) for name in RECIPES)
    yield from ((name, size, False) for name, size in LARGE)


def _packed(folder: Path, recipe: str, size: str, parity_only: bool, on_step: OnStep) -> Iterator[GpuSubject]:
    from benchmarks.core.exported import Exported
    from export.onnx.build import half_precision
    from export.onnx.graph import export_front_end, join
    from export.portability.precision import to_bfloat16

    on_step(f"exporting {recipe}, {size}")
    exported, stem = Exported(recipe, size), f"{recipe}-{size}"
    batch = _REFERENCE_BATCH
    inputs = {"pcm": exported.noise(batch), **exported.metadata(batch)}
    logits = exported.torch_logits(batch)
    np.savez_compressed(folder / f"{stem}.npz", allow_pickle=False, logits=logits, **inputs)
    graphs = {"fp32": exported.joined}
    if not parity_only:
        graphs["fp16"] = join(export_front_end(exported.spec), half_precision(exported.network), {})
        graphs["bf16"] = to_bfloat16(graphs["fp16"])
    rows = {n: (str(v.dtype), list(v.shape[1:])) for n, v in inputs.items()}
    macs = 0
    for precision, graph in graphs.items():
        name = f"{stem}.{precision}.onnx"
        (folder / name).write_bytes(graph.SerializeToString())
        subject = GpuSubject(
            name=stem, precision=precision, file=name, rows=rows, macs=macs, reference=f"{stem}.npz",
            parity_only=parity_only,
        )  # fmt: skip
        if not macs:
            macs = count_macs(folder / name, subject.inputs(1))
        yield msgspec.structs.replace(subject, macs=macs)


def cpu_engine(subject: GpuSubject) -> OrtEngine:
    """ONNX Runtime on the CPU: what stands in where there is no GPU."""
    return OrtEngine(Path(subject.file))
