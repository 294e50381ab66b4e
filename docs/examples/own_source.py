"""A source of your own: any object with a name, a rate, blocks and ``close``. This one drops samples on purpose."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

import edge_sdk
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.sinks.console import ConsoleSink


class Replay:
    """Samples from memory in blocks of 10 ms; half a second is missing in the middle."""

    name = "replay with a gap"
    live = False  # it can wait for a slow consumer

    def __init__(self, samples: np.ndarray, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._samples = samples

    def __iter__(self) -> Iterator[edge_sdk.AudioBlock]:
        step, middle, lost = self.sample_rate // 100, len(self._samples) // 2, self.sample_rate // 2
        for first in (*range(0, middle, step), *range(middle + lost, len(self._samples), step)):
            dropped = lost if first == middle + lost else 0  # counted, never joined silently
            end = middle if first < middle else len(self._samples)
            samples = self._samples[first : min(first + step, end)]
            yield edge_sdk.AudioBlock(samples, self.sample_rate, first, lost_before=dropped)

    def close(self) -> None:
        """Nothing to release."""


def main() -> None:
    with edge_sdk.open_source("phantom:healthy") as patient:
        blocks = [block.samples for _, block in zip(range(600), patient, strict=False)]
        source = Replay(np.concatenate(blocks), patient.sample_rate)
    bundle = edge_sdk.load_bundle()
    edge_sdk.Session(source, bundle, [ConsoleSink(sys.stdout, summary_labels(bundle))]).run()


if __name__ == "__main__":
    main()
