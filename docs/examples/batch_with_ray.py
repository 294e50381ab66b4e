"""Screen an archive on a Ray cluster: ``python batch_with_ray.py FOLDER RESULTS [ADDRESS]`` (extra ``ray``).

Without an address a cluster is started on this machine. Run again after an interruption: finished recordings are kept
in RESULTS and not screened twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edge_sdk
from edge_sdk.screening.folders import find_recordings
from edge_sdk.screening.recordings import ScreenOptions
from edge_sdk.screening.screen import screen_archive


def main(folder: Path, results: Path, address: str | None = None) -> None:
    bundle = edge_sdk.load_bundle()
    recordings = find_recordings([folder]).recordings
    done = screen_archive(bundle, recordings, ScreenOptions(), engine="ray", address=address, results=results)
    for item in done:
        print(item.source, item.error or item.summary["counts"], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
