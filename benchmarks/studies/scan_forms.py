"""Forms of the selective scan, alone and inside DASS: nodes, export time, parity, ONNX Runtime against torch eager.

    python -m benchmarks.studies.scan_forms              # DASS-small of the paper on an 8 s clip, all parallel forms
    python -m benchmarks.studies.scan_forms --quick           # the tiny network, seconds

Prints JSON lines. All calls run in turn in the same rounds, so that the ratios are reliable.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import typer
from torch import Tensor, nn

from benchmarks.core.harness import Row, interleave, machine_row, median_ratio, percentiles
from edge_sdk.models.dass import DIRECTIONS, SIZES, Dass
from edge_sdk.models.layers.selective_scan import FORMS, ScanForm, linear_scan
from edge_sdk.runtime.engines.library import onnxruntime as ort
from edge_sdk.signal.spec import FrontEndSpec
from export.onnx.graph import export_network
from export.onnx.lint import OPSET

PAPER = FrontEndSpec(
    rate_hz=16000, window_s=8.0, frame_samples=400, hop_samples=160, mel_bins=128, low_hz=20.0, high_hz=8000.0
)
COMPACT = FrontEndSpec(mel_bins=48)


@dataclass(frozen=True)
class ScanCalls:
    """One form of the scan as calls in both engines."""

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


def _calls(form: ScanForm, module: nn.Module, model: onnx.ModelProto, export_s: float, inputs: list[Any]) -> ScanCalls:
    """Compare both engines on each tuple of ``inputs``; the first tuple is timed."""
    session = _session(model, torch.get_num_threads())
    names = [value.name for value in model.graph.input]
    feeds = [dict(zip(names, (x.numpy() for x in batch), strict=True)) for batch in inputs]
    with torch.no_grad():
        pairs = [(session.run(None, f)[0], module(*batch).numpy()) for f, batch in zip(feeds, inputs, strict=True)]

    def eager() -> object:
        with torch.no_grad():
            return module(*inputs[0])

    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    return ScanCalls(form, len(model.graph.node), export_s, difference, eager, lambda: session.run(None, feeds[0]))


def network_calls(form: ScanForm, size: str, spec: FrontEndSpec) -> ScanCalls:
    """DASS with random weights, compared at batch sizes 1 and 3."""
    torch.manual_seed(0)
    network = Dass(classes=4, size=size, scan=form).eval()
    before = time.perf_counter()
    model = export_network(network, spec)
    export_s = time.perf_counter() - before
    return _calls(form, network, model, export_s, [(torch.randn(b, 1, spec.mel_bins, spec.frames),) for b in (1, 3)])


def scan_calls(form: ScanForm, length: int, channels: int) -> ScanCalls:
    """The recurrence alone, in four directions over one clip."""
    torch.manual_seed(0)
    example = (torch.rand(1, DIRECTIONS, length, channels).sqrt(), torch.randn(1, DIRECTIONS, length, channels))
    module = _Scan(form).eval()
    before = time.perf_counter()
    program: Any = torch.onnx.export(module, example, dynamo=True, opset_version=OPSET, verbose=False)
    return _calls(form, module, program.model_proto, time.perf_counter() - before, [example])


def scan_form_rows(what: str, scans: list[ScanCalls], rounds: int) -> Iterator[Row]:
    """One row per form and engine; ``ratio_to_torch``: median of torch's time over ONNX Runtime's for the same form."""
    calls: dict[str, Callable[[int], object]] = {}
    for scan in scans:
        calls[f"{scan.form}/ort"] = lambda _, s=scan: s.session()  # type: ignore[misc]
        calls[f"{scan.form}/torch"] = lambda _, s=scan: s.eager()  # type: ignore[misc]
    timings = interleave(calls, rounds=rounds, warm_up=2)
    for scan in scans:
        ours, theirs = (timings[f"{scan.form}/{engine}"]["seconds"] for engine in ("ort", "torch"))
        row = {
            "benchmark": "scan_forms",
            "subject": {"model": what, "form": scan.form, "threads": torch.get_num_threads(), "batch": 1},
        }
        shape = {"nodes": scan.nodes, "export_s": round(scan.export_s, 1), "max_difference": scan.difference}
        yield row | {"engine": "torch-eager"} | percentiles(theirs)
        yield (
            row | {"engine": "onnxruntime"} | shape | percentiles(ours) | {"ratio_to_torch": median_ratio(theirs, ours)}
        )


def run_scan_forms(size: str, spec: FrontEndSpec, forms: list[ScanForm], rounds: int) -> Iterator[Row]:
    """Rows: the machine, the recurrence alone at the length of the first stage, the whole network."""
    yield machine_row()
    channels = SIZES[size].dims[0]
    length = -(-spec.mel_bins // 4) * -(-spec.frames // 4)  # two strides of 2
    yield from scan_form_rows(f"scan {length}x{channels}", [scan_calls(f, length, channels) for f in forms], rounds)
    yield from scan_form_rows(f"dass {size}", [network_calls(f, size, spec) for f in forms], rounds)


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
    for row in run_scan_forms(size, spec, chosen, rounds):
        typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
