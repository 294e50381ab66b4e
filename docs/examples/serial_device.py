"""Listen to a serial stethoscope: an emulated one on a pseudo-terminal, as firmware on a USB port would look.

With real firmware only the second half is needed: ``edge_sdk.open_source("serial:/dev/ttyACM0")``.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import edge_sdk
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.sinks.console import ConsoleSink
from edge_sdk.sources.phantom import PhantomSource
from firmware_bridge.emulator.device import EmulatedDevice
from firmware_bridge.emulator.model import DeviceOptions
from firmware_bridge.emulator.port import open_device_port


def breathing() -> Iterable[np.ndarray]:
    """Ten seconds of a simulated patient, the blocks of one pass of the device."""
    with PhantomSource("copd", duration_s=10.0, sample_rate=8000) as patient:
        yield from [block.samples for block in patient]


def main(link: Path) -> None:
    port = open_device_port(str(link))
    device = EmulatedDevice(breathing, port, DeviceOptions(rate_hz=8000, once=True, speed=4.0))
    port.plug()
    thread = threading.Thread(target=device.run)
    thread.start()

    bundle = edge_sdk.load_bundle()
    source = edge_sdk.open_source(f"serial:{link}")
    session = edge_sdk.Session(source, bundle, [ConsoleSink(sys.stdout, summary_labels(bundle))])
    session.run()
    thread.join()
    port.unplug()
    print(f"sent {device.report.samples} samples, received {session.stats.samples_in}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "stethoscope")
