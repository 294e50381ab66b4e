"""Makes live_view.svg, the picture in the README: ``python .github/live_view.py``, half a minute."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from edge_sdk import Session, load_bundle
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.sinks.live import LiveView
from edge_sdk.sinks.truth import Truth
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource
from edge_sdk.sources.phantom.twin import true_cycles

SCENARIO, LENGTH_S, SHOWN_S = "asthma", 30.0, 22.6
WIDTH, HEIGHT = 96, 31


class SnapshotSink:
    """Sink that prints the live view once, into a recorded console."""

    def __init__(self, view: LiveView) -> None:
        self.console = Console(width=WIDTH, height=HEIGHT, record=True, file=io.StringIO(), force_terminal=True)
        self._view = view

    def open(self, source: str, sample_rate: int) -> None:
        """Start the view."""
        self._view.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        """Pass the block on, and print the view at its moment."""
        self._view.audio(block)
        if block.first_sample <= SHOWN_S * block.sample_rate < block.first_sample + len(block.samples):
            self.console.print(self._view)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Pass the event on."""
        self._view.event(event, latency_ms)

    def close(self, stats: StreamStats) -> None:
        """Do nothing: the picture is taken."""


def main() -> None:
    bundle = load_bundle()
    labels = summary_labels(bundle)
    truth = Truth(true_cycles(SCENARIO, DEFAULT_SEED, LENGTH_S), normal=labels.normal)
    view = LiveView(labels, title=f"{bundle.manifest.name} {bundle.manifest.version}", truth=truth)
    snapshot = SnapshotSink(view)
    Session(PhantomSource(SCENARIO, duration_s=LENGTH_S, paced=True), bundle, [snapshot]).run()
    # no font from the network: the reader's own monospace font is used
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture = Path(__file__).with_name("live_view.svg")
    snapshot.console.save_svg(str(picture), title="stetho demo", code_format=template)


if __name__ == "__main__":
    main()
