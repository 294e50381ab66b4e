"""Makes live_view.svg, the picture in the README: ``python .github/live_view.py``, half a minute."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from edge_sdk import Session, load_bundle
from edge_sdk.cli.runtime.demo import truth_of
from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.screening.recordings import labels_of
from edge_sdk.sinks.live import LiveView
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

SCENARIO, LENGTH_S, SHOWN_S = "asthma", 30.0, 22.6
WIDTH, HEIGHT = 96, 31


class Photographer:
    """A sink that keeps one moment of the live view."""

    def __init__(self, view: LiveView) -> None:
        self.console = Console(width=WIDTH, height=HEIGHT, record=True, file=io.StringIO(), force_terminal=True)
        self._view = view

    def open(self, source: str, sample_rate: int) -> None:
        self._view.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        self._view.audio(block)
        if block.first_sample <= SHOWN_S * block.sample_rate < block.first_sample + len(block.samples):
            self.console.print(self._view)

    def event(self, event: Event, latency_ms: float | None) -> None:
        self._view.event(event, latency_ms)

    def close(self, stats: StreamStats) -> None:
        pass


def main() -> None:
    bundle = load_bundle()
    labels = labels_of(bundle)
    truth = truth_of(SCENARIO, DEFAULT_SEED, LENGTH_S, labels.normal)
    view = LiveView(labels, title=f"{bundle.manifest.name} {bundle.manifest.version}", truth=truth)
    photographer = Photographer(view)
    Session(PhantomSource(SCENARIO, duration_s=LENGTH_S, paced=True), bundle, [photographer]).run()
    # no font from the network: the reader's own monospace face will do
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture = Path(__file__).with_name("live_view.svg")
    photographer.console.save_svg(str(picture), title="stetho demo", code_format=template)


if __name__ == "__main__":
    main()
