"""Classify live, here from a simulated patient: ``python live.py [SOURCE]``.

SOURCE is what ``stetho listen`` takes: ``mic``, ``mic:USB``, ``serial``, ``serial:/dev/ttyACM0``, ``phantom:asthma``,
or a recording. Ctrl-C ends the session with its summary.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import edge_sdk
from edge_sdk.screening.recordings import summary_labels
from edge_sdk.sinks.console import ConsoleSink


def main(name: str) -> None:
    bundle = edge_sdk.load_bundle()
    source = edge_sdk.open_source(name)
    session = edge_sdk.Session(source, bundle, [ConsoleSink(sys.stdout, summary_labels(bundle))])
    with suppress(KeyboardInterrupt):
        session.run()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "phantom:asthma")
