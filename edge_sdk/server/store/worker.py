"""The process that screens uploaded files: a file that crashes a decoder, or needs long, harms no stream.

Reads one job a line on standard input, writes progress and results as JSON lines on standard output, and ends with its
input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import AudioError, describe
from edge_sdk.json_lines import json_line

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle

_REPORT_EVERY_S = 2.0  # of audio
_RATES = (1000, 192_000)


def main() -> None:
    """Do jobs until the input ends."""
    from edge_sdk.runtime.bundle.load import load_bundle

    with suppress(OSError):
        os.nice(10)  # live streams go first
    options = json.loads(sys.stdin.readline())
    bundle = load_bundle(options["bundle"], artefact=options["artefact"])
    for line in sys.stdin:
        job = json.loads(line)

        def report(share: float, job_id: str = job["id"]) -> None:
            _emit({"id": job_id, "progress": round(share, 4)})

        try:
            recording = screen_upload(bundle, job, report)
        except Exception as error:
            _emit({"id": job["id"], "error": _public(describe(error), job)})
        else:
            _emit({"id": job["id"], "recording": recording})


def screen_upload(bundle: Bundle, job: Mapping[str, Any], report: Callable[[float], None]) -> str:
    """Play an uploaded file through a stream into a recording; return the recording's id.

    Raises
    ------
    AudioError
        The file cannot be used.
    """
    from edge_sdk.runtime.engines.failover import EngineChanges
    from edge_sdk.screening.recordings import check_length, summary_labels
    from edge_sdk.signal.blocks import on_grid
    from edge_sdk.sinks.flac import FULL_SCALE
    from edge_sdk.sinks.recorder import RecorderSink
    from edge_sdk.sources.file import FileSource

    path = Path(job["path"])
    with FileSource(path, block_s=0.5) as source:
        if not _RATES[0] <= source.sample_rate <= _RATES[1]:
            raise AudioError(f"a sample rate of {source.sample_rate} Hz is not one of {_RATES[0]} to {_RATES[1]} Hz")
        if source.channels > job["channels"]:
            raise AudioError(f"it has {source.channels} channels; {job['channels']} are allowed")
        if source.duration_s is not None:
            if source.duration_s > job["longest_s"]:
                raise AudioError(f"it lasts {source.duration_s:.0f} s; {job['longest_s']:.0f} s are allowed")
            check_length(bundle, "it", source.duration_s)
        stream = bundle.stream(source.sample_rate, job["about"].get("metadata") or None, offline=True)
        sink = RecorderSink(Path(job["folder"]), summary_labels(bundle), about=job["about"])
        sink.open("upload", source.sample_rate)
        engine = EngineChanges(bundle.engine)
        done = 0
        due = 0.0
        try:
            for block in source:
                done += block.samples.size
                if done > job["longest_s"] * source.sample_rate:
                    raise AudioError(f"it is longer than {job['longest_s']:.0f} s, whatever its header says")
                block = replace(block, samples=on_grid(block.samples, FULL_SCALE)[0])  # as it is kept
                events = stream.accept(block)
                sink.audio(block)
                for event in events:
                    sink.event(event, None)
                if done / source.sample_rate >= due:
                    report(done / max(1, source.frames or done))
                    due += _REPORT_EVERY_S
            for event in stream.finish():
                sink.event(event, None)
            for change in engine.take():
                sink.health(change)
            sink.close(replace(stream.stats, notes=(*source.notes, *stream.notes)))
        except BaseException:
            sink.discard()
            raise
    return sink.name


def _public(message: str, job: Mapping[str, Any]) -> str:
    """The message with the file's own name in place of the path where it is kept."""
    return message.replace(str(job["path"]), str(job["name"]))


def _emit(record: Mapping[str, Any]) -> None:
    sys.stdout.write(json_line(record))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
