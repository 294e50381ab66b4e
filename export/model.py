"""The model under export: network, metadata inputs, decoder, and its reference logits in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edge_sdk.errors import ExportError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.context import in_context
from edge_sdk.runtime.decoding import decide, decode
from edge_sdk.training.calibration import checkpoint_decoder
from edge_sdk.training.checkpoint import Checkpoint
from export.cycles import CycleSet
from export.onnx.runner import GraphRunner

Logits: TypeAlias = npt.NDArray[np.float32]

_BATCH_SAMPLES = 64 * 12_000  # samples at once: 64 cycles of our own front end, 6 of 8 s at 16 kHz


@dataclass(frozen=True)
class GraphEvaluation:
    """Runs ``pcm → logits`` graphs on annotated cycles; reads logits as the device does, without a verdict's join."""

    labels: tuple[str, ...]
    decoder: Decoder
    schema: MetadataSchema | None  # metadata inputs of the graph; None: it has none
    window_samples: int
    input: str = "pcm"

    def logits(self, runner: GraphRunner, cycles: CycleSet) -> Logits:
        """Logits ``[N, C]`` of a graph."""
        parts = []
        for begin, end in self.batches(cycles):
            feed = {self.input: cycles.pcm[begin:end], **self.metadata_inputs(cycles.metadata_rows(begin, end))}
            parts.append(runner.run(feed))
        return np.concatenate(parts)

    def labels_of(self, logits: Logits) -> npt.NDArray[np.int64]:
        """Decisions ``[N]`` from logits ``[N, C]``, as on the device."""
        return self.decisions(decode(logits, self.decoder))

    def probabilities(self, logits: Logits, cycles: CycleSet) -> npt.NDArray[np.float64]:
        """Probabilities ``[N, C]`` of annotated cycles, in the context of their recordings; the classifier alone."""
        recordings, starts = zip(*cycles.places, strict=True) if cycles.places else ((), ())
        share = self.decoder.context_share if cycles.places else 0.0
        return decode(in_context(logits, share, recordings, starts), self.decoder)

    def decisions(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Decisions ``[N]`` from probabilities ``[N, C]``."""
        return decide(probabilities, self.decoder, self.labels.index(self.decoder.normal_label))

    def metadata_inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
        """Metadata inputs of the graph for a batch; empty where the graph reads no metadata."""
        return {} if self.schema is None else self.schema.encode(rows)

    def batches(self, cycles: CycleSet) -> list[tuple[int, int]]:
        """First cycle and end of each batch, which holds about as many samples whatever the window is."""
        size = max(1, _BATCH_SAMPLES // self.window_samples)
        return [(begin, begin + size) for begin in range(0, len(cycles), size)]


@dataclass(frozen=True)
class ModelUnderExport:
    """A checkpoint, with its metadata fixed or not."""

    checkpoint: Checkpoint
    fixed: Mapping[str, Any] | None = None  # metadata that every cycle of this bundle has

    @cached_property
    def schema(self) -> MetadataSchema | None:
        """Metadata inputs of the graph; None: it has none."""
        return None if self.fixed else self.checkpoint.metadata_schema

    @cached_property
    def network(self) -> nn.Module:
        """The network that becomes a graph.

        Raises
        ------
        ExportError
            Metadata is fixed for a network that reads none.
        """
        network = self.checkpoint.build()
        if not self.fixed:
            return network
        schema = self.checkpoint.metadata_schema
        specialise: Callable[[Metadata], nn.Module] | None = getattr(network, "specialised", None)
        if schema is None or specialise is None:
            raise ExportError(f"model {self.checkpoint.model!r} reads no metadata; leave --fix out")
        if unknown := sorted(set(self.fixed) - set(schema.fields)):
            raise ExportError(f"the model does not read {', '.join(unknown)}; --fix takes {', '.join(schema.fields)}")
        return specialise(Metadata.from_arrays(schema.encode([self.fixed])))

    @cached_property
    def decoder(self) -> Decoder:
        """How its logits become labels."""
        return checkpoint_decoder(self.checkpoint)

    @cached_property
    def evaluation(self) -> GraphEvaluation:
        """How its graphs are run on cycles, and their logits read."""
        checkpoint = self.checkpoint
        return GraphEvaluation(tuple(checkpoint.labels), self.decoder, self.schema, checkpoint.front_end.window_samples)

    @torch.inference_mode()
    def torch_logits(self, cycles: CycleSet) -> Logits:
        """Reference logits ``[N, C]``: the checkpoint's own network in fp32, metadata fixed or not."""
        network, front_end = self.checkpoint.build(), FoldedFrontEnd(self.checkpoint.front_end)
        schema = self.checkpoint.metadata_schema
        parts = []
        for begin, end in self.evaluation.batches(cycles):
            features = front_end(torch.from_numpy(cycles.pcm[begin:end]))
            if schema is None:
                parts.append(network(features).numpy())
                continue
            rows = [self.fixed] * len(features) if self.fixed else cycles.metadata_rows(begin, end)
            parts.append(network(features, Metadata.from_arrays(schema.encode(rows))).numpy())
        return np.concatenate(parts)
