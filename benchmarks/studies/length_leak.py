"""Whether a classifier reads the length of an event off its window.

The same events twice: cut as annotated, and as windows of one length around their middles. Prints one JSON object:
what a probe on the embedding (the input of the last layer) predicts of the annotated length, and how well the
classifier itself ranks abnormal events.

``python -m benchmarks.studies.length_leak default sprsound ROOT --split val``
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.audio import batches, cycle_pcm
from edge_sdk.metrics.ranking import auroc
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.training.classification.length_probe import probe_length

EQUAL_S = 1.2
_BATCH = 64


class EmbeddingOfGraph:
    """A bundle's fp32 classifier, run for the input of its last layer and its logits."""

    def __init__(self, folder: str) -> None:
        import onnx

        from edge_sdk.runtime.engines.library import onnxruntime

        bundle = load_bundle(folder, artefact="onnx-fp32")
        self.spec, self.labels = bundle.front_end, bundle.labels
        model = onnx.load(str(bundle.path / bundle.artefact.file))
        makers = {name: node for node in model.graph.node for name in node.output}
        last = makers[bundle.artefact.output]
        while last.op_type not in ("Gemm", "MatMul"):
            last = makers[last.input[0]]
        model.graph.output.append(onnx.ValueInfoProto(name=last.input[0]))
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self._outputs = [last.input[0], bundle.artefact.output]

    def __call__(self, pcm: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embeddings ``[B, D]`` and logits ``[B, K]`` of windows ``[B, N]``."""
        embedding, logits = self._session.run(self._outputs, {"pcm": pcm})
        return embedding.reshape(len(pcm), -1), logits


class EmbeddingOfCheckpoint:
    """The same of a checkpoint, in torch."""

    def __init__(self, path: Path) -> None:
        from edge_sdk.training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(path)
        self.spec, self.labels = checkpoint.front_end, checkpoint.labels
        self._end_to_end = checkpoint.build_end_to_end()

    def __call__(self, pcm: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embeddings ``[B, D]`` and logits ``[B, K]`` of windows ``[B, N]``."""
        import torch

        front_end, network = self._end_to_end[0], self._end_to_end[1]  # type: ignore[index]
        with torch.inference_mode():
            outputs = network.outputs(front_end(torch.from_numpy(pcm)))
        return outputs.embedding.flatten(1).numpy(), outputs.logits.numpy()


def equal_lengths(corpus: Corpus, length_s: float = EQUAL_S) -> Corpus:
    """The corpus with every cycle replaced by a window of one length around its middle, inside the recording."""
    duration = {recording.id: recording.duration_s or length_s for recording in corpus.recordings}
    cycles = []
    for cycle in corpus.cycles:
        latest = max(0.0, duration[cycle.recording_id] - length_s)
        start = float(np.clip((cycle.start_s + cycle.end_s - length_s) / 2, 0.0, latest))
        cycles.append(replace(cycle, start_s=start, end_s=start + length_s))
    return replace(corpus, cycles=tuple(cycles))


def length_leak(model: EmbeddingOfGraph | EmbeddingOfCheckpoint, corpus: Corpus) -> dict[str, Any]:
    """Probe and ranking as annotated and of equal length; see the module."""
    lengths = np.array([cycle.duration_s for cycle in corpus.cycles])
    abnormal = np.array([cycle.label != model.labels[0] for cycle in corpus.cycles])
    patients = [cycle.patient for cycle in corpus.cycles]
    result: dict[str, Any] = {"n": len(lengths), "patients": len(set(patients)), "equal_s": EQUAL_S}
    result["auroc_of_length"] = auroc(abnormal, lengths)
    for name, cut in (("as_annotated", corpus), ("equal_length", equal_lengths(corpus))):
        found = [model(windows) for _, windows in batches(cycle_pcm(cut.cycles, model.spec), _BATCH)]
        logits = np.concatenate([row for _, row in found]).astype(np.float64)
        score = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
        probe = probe_length(np.concatenate([row for row, _ in found]), lengths, abnormal, patients)
        result[name] = {"probe": probe.to_dict(), "auroc": auroc(abnormal, score)}
    return result


def main(
    model: Annotated[str, typer.Argument(help="Checkpoint, or bundle whose classifier ends in a linear layer.")],
    corpus: Annotated[str, typer.Argument(help="Corpus with annotated cycles.")],
    root: Annotated[Path, typer.Argument(help="Folder of the corpus.")],
    split: Annotated[str, typer.Option(help="Split of the corpus.")] = "val",
) -> None:
    """Probe a classifier for the length of events; JSON lines on stdout."""
    path = Path(model)
    embed = EmbeddingOfCheckpoint(path) if path.suffix == ".pt" else EmbeddingOfGraph(model)
    result = length_leak(embed, load_corpus(corpus, root, split=split))
    typer.echo(json.dumps({"model": model, "split": split, **result}))


if __name__ == "__main__":
    typer.run(main)
