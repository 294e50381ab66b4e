"""Forms of the selective scan, alone and inside DASS: nodes, export time, parity, ONNX Runtime beside torch eager.

    python -m benchmarks.studies.scan_forms              # DASS-small of the paper on an 8 s clip, all parallel forms
    python -m benchmarks.studies.scan_forms --quick           # the tiny network, seconds

One JSON object a line. All subjects run in turn in the same rounds: trust the ratios.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import typer
from torch import Tensor, nn

from benchmarks.core.harness import Row, interleave, machine_row, median_ratio, percentiles
from edge_sdk.models.dass import DIRECTIONS, SIZES, Dass
from edge_sdk.models.layers.selective_scan import FORMS, ScanForm, linear_scan
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import OPSET, export_network

PAPER = FrontEndSpec(
    rate_hz=16000, window_s=8.0, frame_samples=400, hop_samples=160, mel_bins=128, low_hz=20.0, high_hz=8000.0
)
COMPACT = FrontEndSpec(mel_bins=48)


@dataclass(frozen=True)
class Subject:
    """One graph in both engines."""

    form: ScanForm
    nodes: int
    export_s: float
    difference: float  # largest |ONNX Runtime - torch| of all batches tried
    eager: Callable[[], object]
    session: Callable[[], object]


class _Scan(nn.Module):
    def __init__(self, form: ScanForm) -> None:
        super().__init__()
        self.form: ScanForm = form

    def forward(self, decay: Tensor, drive: Tensor) -> Tensor:
        return linear_scan(decay, drive, self.form)


def _session(model: onnx.ModelProto, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _subject(form: ScanForm, module: nn.Module, model: onnx.ModelProto, export_s: float, inputs: list[Any]) -> Subject:
    """``inputs``: one tuple of tensors for each batch to compare; the first is timed."""
    session = _session(model, torch.get_num_threads())
    names = [value.name for value in model.graph.input]
    feeds = [dict(zip(names, (x.numpy() for x in batch), strict=True)) for batch in inputs]
    with torch.no_grad():
        pairs = [(session.run(None, f)[0], module(*batch).numpy()) for f, batch in zip(feeds, inputs, strict=True)]

    def eager() -> object:
        with torch.no_grad():
            return module(*inputs[0])

    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    return Subject(form, len(model.graph.node), export_s, difference, eager, lambda: session.run(None, feeds[0]))


def network_subject(form: ScanForm, size: str, spec: FrontEndSpec) -> Subject:
    """DASS of random weights; compared at batch 1 and 3."""
    torch.manual_seed(0)
    network = Dass(classes=4, size=size, scan=form).eval()
    before = time.perf_counter()
    model = export_network(network, spec)
    export_s = time.perf_counter() - before
    return _subject(form, network, model, export_s, [(torch.randn(b, 1, spec.mel_bins, spec.frames),) for b in (1, 3)])


def scan_subject(form: ScanForm, length: int, channels: int) -> Subject:
    """The recurrence alone, four directions of one clip."""
    torch.manual_seed(0)
    example = (torch.rand(1, DIRECTIONS, length, channels).sqrt(), torch.randn(1, DIRECTIONS, length, channels))
    module = _Scan(form).eval()
    before = time.perf_counter()
    program: Any = torch.onnx.export(module, example, dynamo=True, opset_version=OPSET, verbose=False)
    return _subject(form, module, program.model_proto, time.perf_counter() - before, [example])


def rows(what: str, subjects: list[Subject], rounds: int) -> Iterator[Row]:
    """A row per form and engine; ``ratio_to_torch`` is the median of torch's time over ONNX Runtime's, same form."""
    calls: dict[str, Callable[[int], object]] = {}
    for subject in subjects:
        calls[f"{subject.form}/ort"] = lambda _, s=subject: s.session()  # type: ignore[misc]
        calls[f"{subject.form}/torch"] = lambda _, s=subject: s.eager()  # type: ignore[misc]
    timings = interleave(calls, rounds=rounds, warm_up=2)
    for subject in subjects:
        ours, theirs = (timings[f"{subject.form}/{engine}"]["seconds"] for engine in ("ort", "torch"))
        row = {
            "benchmark": "scan_forms",
            "subject": {"model": what, "form": subject.form, "threads": torch.get_num_threads(), "batch": 1},
        }
        shape = {"nodes": subject.nodes, "export_s": round(subject.export_s, 1), "max_difference": subject.difference}
        yield row | {"engine": "torch-eager"} | percentiles(theirs)
        yield (
            row | {"engine": "onnxruntime"} | shape | percentiles(ours) | {"ratio_to_torch": median_ratio(theirs, ours)}
        )


def run(size: str, spec: FrontEndSpec, forms: list[ScanForm], rounds: int) -> Iterator[Row]:
    """The machine, the recurrence alone at the first stage's length, the whole network."""
    yield machine_row()
    channels = SIZES[size].dims[0]
    length = -(-spec.mel_bins // 4) * -(-spec.frames // 4)  # two strides of 2
    yield from rows(f"scan {length}x{channels}", [scan_subject(f, length, channels) for f in forms], rounds)
    yield from rows(f"dass {size}", [network_subject(f, size, spec) for f in forms], rounds)


def main(
    size: str = typer.Option("base", help="Size of DASS."),
    forms: str = typer.Option("chunked,two_level,doubling", help="Forms to compare, separated by commas."),
    rounds: int = typer.Option(20, help="Timed rounds."),
    threads: int = typer.Option(2, help="Threads of both engines."),
    quick: bool = typer.Option(False, "--quick", help="Tiny network and few rounds."),
) -> None:
    """Compare forms of the selective scan; JSON lines on stdout."""
    chosen = [form for form in FORMS if form in forms.split(",")]
    if len(chosen) != len(set(forms.split(","))):
        raise typer.BadParameter(f"forms must be among {', '.join(FORMS)}")
    torch.set_num_threads(threads)
    size, rounds = ("tiny", 3) if quick else (size, rounds)
    spec = COMPACT if size in ("tiny", "small") else PAPER
    for row in run(size, spec, chosen, rounds):
        typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
