"""A sink of your own: it receives every event in order and raises an alarm after three abnormal cycles in a row."""

from __future__ import annotations

import sys

import edge_sdk


class Alarm:
    """Counts abnormal cycles in a row."""

    def __init__(self, normal: str, threshold: int = 3) -> None:
        self._normal, self._threshold, self._row = normal, threshold, 0

    def open(self, source: str, sample_rate: int) -> None:
        print(f"watching {source} at {sample_rate} Hz")

    def audio(self, block: edge_sdk.AudioBlock) -> None:
        """Not needed here: a sink also sees the samples."""

    def event(self, event: object, latency_ms: float | None) -> None:
        if not isinstance(event, edge_sdk.CycleResult) or event.label is None:
            return
        self._row = 0 if event.label == self._normal else self._row + 1
        if self._row == self._threshold:
            print(f"{event.cycle.end_s:.1f} s: {self._threshold} abnormal cycles in a row, the last a {event.label}")

    def close(self, stats: edge_sdk.StreamStats) -> None:
        print(f"{stats.cycles} cycles, {stats.classified} classified")


def main(name: str) -> None:
    bundle = edge_sdk.load_bundle()
    source = edge_sdk.open_source(name)
    edge_sdk.Session(source, bundle, [Alarm(bundle.classifier.normal_label)]).run()


if __name__ == "__main__":
    main(sys.argv[1])
