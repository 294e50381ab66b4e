"""The classifier of respiratory cycles: window, engine and decoder, from samples to a label with its probabilities."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.context import RecordingContext
from edge_sdk.runtime.decoding import decide, decode
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec

MetadataRows: TypeAlias = Sequence[Mapping[str, Any]]
"""The metadata of each cycle of a batch: field name → value."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The classifier's result for one cycle."""

    label: str
    probabilities: dict[str, float]  # in the order of the labels
    elapsed_ns: int  # in the engine and the decoder

    def with_probabilities(self, probabilities: npt.NDArray[np.float64]) -> Classification:
        """The same cycle with other probabilities ``[C]``, and the most probable label."""
        rows = dict(zip(self.probabilities, probabilities.tolist(), strict=True))
        return replace(self, label=max(rows, key=rows.__getitem__), probabilities=rows)


@dataclass(frozen=True)
class Classifier:
    """Windowed PCM → logits → calibrated probabilities → label; stateless, shared by streams and threads.

    Parameters
    ----------
    front_end
        Rate and window that the engine expects.
    engine
        Runs the graph.
    decoder
        Turns logits into probabilities and a label.
    labels
        C names, in the order of the probabilities.
    metadata_schema
        Encodes metadata; None for a network that reads none.
    pcm_input, logits_output
        Names of the graph's input and output.
    """

    front_end: FrontEndSpec
    engine: Engine
    decoder: Decoder
    labels: tuple[str, ...]
    metadata_schema: MetadataSchema | None = None
    pcm_input: str = "pcm"
    logits_output: str = "logits"

    @property
    def normal_label(self) -> str:
        """The label of a cycle without adventitious sounds."""
        return self.decoder.normal_label

    @property
    def normal_index(self) -> int:
        """Index of :attr:`normal_label` in the labels."""
        return self.labels.index(self.decoder.normal_label)

    def new_context(self) -> RecordingContext:
        """Context of one recording or stream, by the decoder's setting."""
        return RecordingContext(self.decoder.context_share)

    def logits(self, pcm: npt.NDArray[np.float32], metadata: MetadataRows | None = None) -> npt.NDArray[np.float32]:
        """Logits ``[B, K]`` of windowed PCM ``[B, window_samples]`` at the front end's rate.

        Parameters
        ----------
        pcm
            float32 in ±1.
        metadata
            One mapping per cycle; absent fields are unknown. Ignored by a network that reads no metadata.

        Raises
        ------
        EngineError
            Shapes do not fit the graph.
        """
        inputs: dict[str, npt.NDArray[Any]] = {self.pcm_input: pcm}
        if self.metadata_schema is not None:
            inputs |= self.metadata_schema.encode(metadata if metadata is not None else [{}] * len(pcm))
        result: npt.NDArray[np.float32] = self.engine.run(inputs)[self.logits_output]
        return result

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities ``[B, C]`` of logits ``[B, K]``, by the decoder."""
        return decode(logits, self.decoder)

    def decide(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Indices ``[B]`` of the labels for probabilities ``[B, C]``, by the decoder's thresholds."""
        return decide(probabilities, self.decoder, self.normal_index)

    def classify(self, pcm: npt.NDArray[np.float32], metadata: MetadataRows | None = None) -> npt.NDArray[np.float64]:
        """Probabilities ``[B, C]``, each cycle by itself (no context); parameters and errors as :meth:`logits`."""
        return self.probabilities(self.logits(pcm, metadata))

    def classify_cycle(
        self,
        samples: npt.NDArray[np.float32],
        metadata: Mapping[str, Any] | None = None,
        context: RecordingContext | None = None,
    ) -> Classification:
        """Classify one cycle, padded or cut to the window.

        Parameters
        ----------
        samples
            ``[n]`` at the front end's rate, n >= 1.
        metadata
            Of patient and device.
        context
            Of the cycle's recording, from :meth:`new_context`; takes this cycle in. Absent: the cycle by itself.

        Raises
        ------
        EngineError
            The engine failed, or its logits are not finite.
        """
        window = fit_window(samples, self.front_end)
        row = {**(metadata or {}), "duration_s": samples.size / self.front_end.rate_hz}
        before = time.perf_counter_ns()
        logits = self.logits(window[None], [row])  # [1, K]
        if not np.isfinite(logits).all():
            raise EngineError(f"{self.engine.name} computed NaN; try another artefact or engine")
        probabilities = decode(logits if context is None else context(logits[0])[None], self.decoder)  # [1, C]
        elapsed = time.perf_counter_ns() - before
        label = self.labels[int(self.decide(probabilities)[0])]
        return Classification(label, dict(zip(self.labels, probabilities[0].tolist(), strict=True)), elapsed)
