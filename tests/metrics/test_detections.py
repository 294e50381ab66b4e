"""What scoring reads from the events of a stream."""

from __future__ import annotations

from edge_sdk.events import BreathCycle
from edge_sdk.metrics.detections import DetectedCycles


def test_a_cycle_without_an_audible_span_is_audible_throughout() -> None:
    found = DetectedCycles()
    found.event(BreathCycle(0, 4000, 12000, 4000, True, 13000, 0.9, None, (4400, 9000)))
    found.event(BreathCycle(1, 12000, 20000, 4000, True, 21000, 0.2))
    assert found.finish().audible.tolist() == [[1.1, 2.25], [3.0, 5.0]]
    assert DetectedCycles().finish().audible.shape == (0, 2)
