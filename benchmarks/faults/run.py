"""Faults on purpose, each against a stated bound: time to recover, sound lost, and whether it is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.core.harness import Row, machine_row
from benchmarks.faults.device import disk_full, frame_loss, stop_and_continue, unplug
from benchmarks.faults.host import cpu_hog, monotonic_clock, slow_consumer, wall_clock
from benchmarks.faults.row import FaultOptions
from edge_sdk.runtime.bundle.load import Bundle, load_bundle

__all__ = ["FAULTS", "FaultOptions", "run"]


def run(options: FaultOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then one a fault. ``passed`` is the finding; nothing is raised for it."""
    yield machine_row()
    bundle = load_bundle(options.bundle, allow_untrained=True)
    for name in options.only or FAULTS:
        if on_step is not None:
            on_step(name)
        begin = time.monotonic()
        row = FAULTS[name](bundle, options)
        subject = {
            "model": f"{bundle.manifest.name} {bundle.manifest.version}",
            "artefact": bundle.artefact.format,
            "engine": bundle.engine.name,
            "part": name,
        }
        yield {"benchmark": "faults", "subject": subject, **row, "wall_s": time.monotonic() - begin}


FAULTS: dict[str, Callable[[Bundle, FaultOptions], Row]] = {
    "cpu-hog": cpu_hog,
    "slow-consumer": slow_consumer,
    "unplug": unplug,
    "frame-loss": frame_loss,
    "disk-full": disk_full,
    "clock-wall": wall_clock,
    "clock-monotonic": monotonic_clock,
    "sigstop": stop_and_continue,
}
"""Name → what does it."""
