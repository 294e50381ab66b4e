"""More artefacts for a bundle from its own fp32 graph: without the checkpoint, and its other files stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import checked_file, read_manifest
from edge_sdk.runtime.bundle.manifest import front_end, metadata_schema
from edge_sdk.runtime.bundle.schema import ArtefactEntry, Golden, Manifest
from export.assemble import GOLDEN_FILE, rewrite
from export.cycles import CycleSet, load_cycles
from export.formats import ArtefactFormat, ReportStep
from export.golden import golden_file
from export.model import GraphEvaluation
from export.onnx.graph import join
from export.onnx.runner import GraphRunner, latency_ratio
from export.pipeline import golden_feed, gpu_tolerance
from export.portability.front_end_part import PREFIX
from export.portability.stress import stress_failures, stress_figures
from export.verify import artefact_accuracy, artefact_drops, gate_failures, parity

REFERENCE = "onnx-fp32"


def add_formats(
    base: Path,
    out: Path,
    formats: Sequence[ArtefactFormat],
    progress: ReportStep,
    *,
    corpus: str | None = None,
    root: Path | None = None,
    name: str | None = None,
    version: str,
) -> Manifest:
    """Write a bundle with further artefacts and a new golden vector; the artefacts it has keep their bytes.

    Parameters
    ----------
    base
        Bundle with an fp32 artefact, the reference of all figures.
    out
        Directory of the new bundle; may be ``base``.
    formats
        Rows of the table that can be made from a graph.
    progress
        Called with each step.
    corpus, root
        Cycles to verify on; without them a new artefact stays unverified.
    name, version
        Of the new bundle; the name of ``base`` where absent.

    Raises
    ------
    ExportError
        A format needs the checkpoint, or the bundle has no fp32 artefact.
    BundleError
        ``base`` is damaged, or ``out`` cannot be written.
    """
    if refused := [row.name for row in formats if not row.from_graph]:
        raise ExportError(f"{refused[0]} cannot be made from a bundle's graph: export it from the checkpoint")
    old = read_manifest(base)
    reference = next((a for a in old.artefacts if a.format == REFERENCE), None)
    if reference is None:
        raise ExportError(f"{base} has no {REFERENCE}, which other formats are made from: export the checkpoint")
    kept = [a for a in old.artefacts if a.format not in {row.name for row in formats}]
    contents = {a.format: checked_file(base, a).read_bytes() for a in kept}
    measure = _Measure(base, old, reference, contents[REFERENCE], _cycles(base, reference, corpus, root, progress))
    entries = list(kept)
    for row in formats:
        progress(f"{row.name}: building")
        content = _joined(row, contents[REFERENCE])
        progress(f"{row.name}: measuring")
        entries.append(measure.entry(row, content))
        contents[row.name] = content
    golden = golden_file(
        np.round(measure.golden["pcm"] * 32768).astype(np.int16),
        {name: GraphRunner(content).run(measure.golden) for name, content in contents.items()},
        {key: values for key, values in measure.golden.items() if key != reference.input} or None,
    )
    tolerance = old.golden.tolerance | {row.name: row.golden_tolerance for row in formats}
    digest = hashlib.sha256(golden).hexdigest()
    manifest = msgspec.structs.replace(
        old,
        name=name or old.name,
        version=version,
        artefacts=entries,
        golden=Golden(file=GOLDEN_FILE, sha256=digest, tolerance=tolerance),
    )
    progress("writing the bundle")
    files = {GOLDEN_FILE: golden} | {row.file: contents[row.name] for row in formats}
    return rewrite(base, manifest, files, out)


def _joined(row: ArtefactFormat, reference: bytes) -> bytes:
    model = onnx.load_from_string(reference)
    properties = {p.key: p.value for p in model.metadata_props}
    module, _, function = row.graph_builder.partition(":")
    network: onnx.ModelProto = getattr(import_module(module), function)(network_of(model))
    properties |= {"format": row.name, "precision": row.precision}
    joined = join(front_end_of(model), network, properties, tensorrt=row.tensorrt)
    return bytes(joined.SerializeToString())


def network_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """``features → logits`` of a ``pcm → logits`` graph that this SDK joined.

    Raises
    ------
    ExportError
        The graph has no front end of this SDK.
    """
    features = _features(model)
    nodes = [node for node in model.graph.node if not node.name.startswith(PREFIX)]
    return _part(model, nodes, [features, *(v for v in model.graph.input if v.name != "pcm")], model.graph.output)


def front_end_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """``pcm → features`` of the same graph, in the names it had before both were joined; errors as above."""
    features = _features(model)
    nodes = [node for node in model.graph.node if node.name.startswith(PREFIX)]
    part = _part(model, nodes, [v for v in model.graph.input if v.name == "pcm"], [features])
    for node in part.graph.node:
        node.name = node.name.removeprefix(PREFIX)
        for field in (node.input, node.output):
            field[:] = [name.removeprefix(PREFIX) for name in field]
    for named in (*part.graph.initializer, *part.graph.value_info):
        named.name = named.name.removeprefix(PREFIX)
    return part


def _features(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one tensor between front end and network."""
    made = {o for node in model.graph.node if node.name.startswith(PREFIX) for o in node.output}
    others = (node for node in model.graph.node if not node.name.startswith(PREFIX))
    read = {name for node in others for name in node.input if name in made}
    shapes = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    if read != {"features"} or "features" not in shapes:
        raise ExportError("the fp32 graph has no front end of this SDK; export the checkpoint again")
    return shapes["features"]


def _part(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    ends = {value.name for value in (*inputs, *outputs)}
    made = {name for node in nodes for name in node.output} - ends
    graph = onnx.helper.make_graph(
        nodes,
        model.graph.name,
        inputs,
        outputs,
        [t for t in model.graph.initializer if t.name in used],
        value_info=[v for v in model.graph.value_info if v.name in made],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(part, full_check=True)
    return part


def _cycles(
    base: Path, entry: ArtefactEntry, corpus: str | None, root: Path | None, progress: ReportStep
) -> tuple[CycleSet, npt.NDArray[np.str_]] | None:
    if corpus is None or root is None:
        return None
    progress(f"reading the cycles of {corpus}")
    return load_cycles(corpus, root, front_end(base, entry))


class _Measure:
    """Compares new artefacts with the bundle's fp32 one."""

    def __init__(
        self,
        base: Path,
        manifest: Manifest,
        reference: ArtefactEntry,
        content: bytes,
        cycles: tuple[CycleSet, npt.NDArray[np.str_]] | None,
    ) -> None:
        self._manifest, self._entry = manifest, reference
        spec, schema = front_end(base, reference), metadata_schema(base, manifest)
        self._evaluation = GraphEvaluation(
            tuple(manifest.labels), manifest.decoder, schema, spec.window_samples, reference.input
        )
        self.golden, self._stress = golden_feed(spec, schema)
        self._cycles = cycles
        self._runner = GraphRunner(content)
        self._logits = None if cycles is None else self._evaluation.logits(self._runner, cycles[0])

    def entry(self, row: ArtefactFormat, content: bytes) -> ArtefactEntry:
        """Entry of an artefact with its figures."""
        runner, one = GraphRunner(content), {name: rows[:1] for name, rows in self.golden.items()}
        figures: dict[str, Any] = {"reference": REFERENCE}
        figures |= latency_ratio(lambda: runner.run(one), lambda: self._runner.run(one))
        figures |= stress_figures(onnx.load_from_string(content), self.golden, self._stress)
        accuracy: dict[str, Any] = {}
        failures = ["made without a corpus"]
        if self._cycles is not None and self._logits is not None:
            cycles, splits = self._cycles
            evaluation, labels = self._evaluation, list(self._manifest.labels)
            logits = evaluation.logits(runner, cycles)
            figures = parity(self._logits, logits, evaluation.labels_of) | figures
            figures |= artefact_drops(
                evaluation.probabilities(self._logits, cycles),
                evaluation.probabilities(logits, cycles),
                cycles,
                labels,
                decide=evaluation.decisions,
            )
            failures = [*gate_failures(row.gate, figures), *stress_failures(figures, gpu_tolerance(row))]
            for split in self._held_out(splits):
                mask = splits == split
                part = cycles.take(np.flatnonzero(mask), split, samples=False)
                own = evaluation.probabilities(logits[mask], part)
                accuracy[split] = artefact_accuracy(own, evaluation.decisions(own), part, labels)
        return msgspec.structs.replace(
            self._entry,
            file=row.file,
            features=msgspec.UNSET,
            format=row.name,
            precision=row.precision,
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            default=False,
            verified=not failures,
            failures=failures,
            parity=json.loads(json.dumps(figures)),
            accuracy=accuracy,
        )

    def _held_out(self, splits: npt.NDArray[np.str_]) -> list[str]:
        trained_on = str(self._manifest.training.get("split", "train")).split("+")
        return [str(s) for s in dict.fromkeys(splits.tolist()) if s not in trained_on]
