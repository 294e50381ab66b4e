"""One recording through a bundle, as fast as possible; and many of them, in order, on several cores."""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_sdk.cli.options import Metadata, describe
from edge_sdk.errors import AudioError, EngineError

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sinks.summary import Labels

_log = logging.getLogger(__name__)

_SUFFIXES = {".wav", ".flac"}
_BLOCK_S = 0.5  # large blocks: nobody waits for the first sample


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every recording of one run."""

    bundle: str
    artefact: str | None = None
    channel: int | Literal["mix"] = 0
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Screened:
    """The JSON lines of one recording, or why there are none."""

    source: str
    records: tuple[dict[str, Any], ...] = ()  # cycles, gaps, quality; the summary last
    error: str | None = None

    @property
    def summary(self) -> dict[str, Any]:
        return self.records[-1]


def find_recordings(paths: Sequence[Path]) -> list[Path]:
    """Files as given; folders searched for wav and flac files, in order of their names.

    Raises
    ------
    AudioError
        If a folder holds no recording.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
        if not inside:
            raise AudioError(f"no wav or flac recording in {path}; name another folder or a file")
        found.extend(inside)
    return list(dict.fromkeys(found))


def screen_recording(bundle: Bundle, path: Path, options: Options) -> tuple[dict[str, Any], ...]:
    """All JSON records of a recording; nothing is handed out before the whole recording was read.

    Raises
    ------
    AudioError
        If it cannot be read, or is too short for a single breath.
    """
    from edge_sdk.sinks.jsonl import JsonlSink
    from edge_sdk.sources.file import FileSource

    records: list[dict[str, Any]] = []
    sink = JsonlSink(records.append, labels_of(bundle))
    with FileSource(path, channel=options.channel, block_s=_BLOCK_S) as source:
        if source.duration_s < bundle.shortest_s:
            length, least = _tenths(source.duration_s, math.floor), _tenths(bundle.shortest_s, math.ceil)
            raise AudioError(f"{path} is too short: it lasts {length} s; at least {least} s are needed")
        stream = bundle.stream(source.sample_rate, metadata=options.metadata or None)
        sink.open(source.name, source.sample_rate)
        for block in source:
            sink.audio(block)
            for event in stream.accept(block):
                sink.event(event, None)
        for event in stream.finish():
            sink.event(event, None)
        sink.close(stream.stats)
    return tuple(records)


def _tenths(seconds: float, rounding: Callable[[float], int]) -> float:
    return rounding(round(10 * seconds, 6)) / 10


def labels_of(bundle: Bundle) -> Labels:
    """What the sinks need to know of a bundle."""
    from edge_sdk.sinks.summary import Labels

    return Labels(bundle.labels, bundle.manifest.decoder.normal_label)


def screen_all(bundle: Bundle, paths: Sequence[Path], options: Options, *, jobs: int) -> Iterator[Screened]:
    """Every recording in the order given, whichever process was first."""
    if jobs == 1 or len(paths) == 1:
        for path in paths:
            yield screen_safely(bundle, path, options)
        return
    context = multiprocessing.get_context("spawn")  # threads of the engine do not survive a fork
    pool = ProcessPoolExecutor(min(jobs, len(paths)), context, initializer=_start_worker, initargs=(options,))
    try:
        yield from pool.map(_screen_in_worker, paths)
    except BrokenProcessPool as error:
        raise EngineError("a worker process was killed (out of memory?); use fewer --jobs") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def screen_safely(bundle: Bundle, path: Path, options: Options) -> Screened:
    """As :func:`screen_recording`, with the reason of a failure instead of an exception."""
    try:
        return Screened(str(path), records=screen_recording(bundle, path, options))
    except Exception as error:  # whatever is wrong with one recording, the others shall be screened
        _log.debug("%s", path, exc_info=True)
        return Screened(str(path), error=describe(error))


_worker: tuple[Bundle, Options] | None = None


def _start_worker(options: Options) -> None:
    global _worker
    from edge_sdk.runtime.bundle.load import load_bundle

    _worker = load_bundle(options.bundle, artefact=options.artefact), options


def _screen_in_worker(path: Path) -> Screened:
    assert _worker is not None
    return screen_safely(_worker[0], path, _worker[1])
