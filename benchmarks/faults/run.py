"""Deliberate faults, each with a bound for the recovery time and the lost samples, and a check of their count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from benchmarks.core.harness import Row, machine_row
from benchmarks.faults.device import disk_full, drop_frames, stop_and_continue, unplug
from benchmarks.faults.host import cpu_hog, monotonic_clock, slow_consumer, wall_clock
from benchmarks.faults.row import FaultOptions
from edge_sdk.runtime.bundle.load import Bundle, load_bundle

__all__ = ["FAULTS", "FaultOptions", "run_faults"]


def run_faults(options: FaultOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then one per fault. ``passed`` is the finding; a missed bound raises no error."""
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
    "frame-loss": drop_frames,
    "disk-full": disk_full,
    "clock-wall": wall_clock,
    "clock-monotonic": monotonic_clock,
    "sigstop": stop_and_continue,
}
"""Name → function that causes the fault and returns its row."""
