"""Screen all recordings of a folder and print a line for each: ``python screen_folder.py FOLDER [JOBS]``."""

from __future__ import annotations

import sys

import edge_sdk


def main(folder: str, jobs: int = 1) -> None:
    for screening in edge_sdk.screen([folder], jobs=jobs):
        if screening.error is not None:
            print(f"{screening.source}: {screening.error}")
            continue
        rate = screening.respiratory_rate_bpm
        shown = "–" if rate is None else f"{rate:.0f}/min"
        print(f"{screening.source}: {len(screening.cycles)} cycles, {shown}, {screening.counts}")


if __name__ == "__main__":  # the processes of a list import this file again
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
