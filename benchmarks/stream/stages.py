"""CPU time of the stages of a stream: resampling, quality, front end, segmenter, classifier, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.core.audio import PreloadedRecording
from benchmarks.core.harness import Row, percentiles
from benchmarks.core.rows import benchmarked_model
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.stream import Stream

STAGES = ("resample", "quality", "front end", "segmenter", "classifier", "emit")
_BLOCK_S = 0.05


class StageClock:
    """Assigns every nanosecond to exactly one stage: an inner stage interrupts the outer one.

    It counts CPU time of the thread, so that other load on the machine does not change the shares.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}  # of each call, inner stages left out
        self._inner: list[int] = []  # nanoseconds of inner stages, of each open call

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with its time counted."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0)
            before = time.thread_time_ns()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.thread_time_ns() - before
                self.seconds[stage].append((spent - self._inner.pop()) / 1e9)
                if self._inner:
                    self._inner[-1] += spent

        return run


class _TimedEngine:
    def __init__(self, engine: Any, clock: StageClock) -> None:
        self._engine = engine
        self.run: Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]
        self.run = clock.timed("classifier", engine.run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def timed_stream(bundle: Bundle, rate_hz: int, clock: StageClock) -> Stream:
    """A stream of the bundle with timed parts; its events do not change."""
    stream = bundle.with_engine(_TimedEngine(bundle.engine, clock)).stream(rate_hz)
    parts = vars(stream)
    feed = parts["_feed"]
    segmenter = feed.segmenter
    inner = vars(segmenter)
    for part, name, stage in (
        (parts["_to_model"], "accept", "resample"),
        (feed.resampler, "accept", "resample"),
        (parts["_gate"], "hold", "quality"),
        (parts["_gate"], "go_on", "quality"),
        (parts["_gate"], "assess", "quality"),
        (inner.get("_mel") or inner.get("_level"), "accept", "front end"),
        (segmenter, "accept" if feed.steps is None else "found", "segmenter"),
        (stream, "accept", "emit"),
    ):
        if part is not None:
            setattr(part, name, clock.timed(stage, getattr(part, name)))
    return stream


def stage_rows(bundle: Bundle, recordings: Iterable[PreloadedRecording], seconds: float) -> Iterator[Row]:
    """One row per stage: share of the stream's time, seconds per hour of audio, percentiles of its calls."""
    clock, audio_s = StageClock(), 0.0
    for recording in recordings:
        _play(timed_stream(bundle, recording.rate_hz, clock), recording)
        audio_s += recording.seconds
        if audio_s >= seconds:
            break
    total = sum(sum(spent) for spent in clock.seconds.values())
    for stage, spent in clock.seconds.items():
        yield {
            "benchmark": "latency",
            "subject": benchmarked_model(bundle, f"stage {stage}"),
            "segmenter": bundle.segmenter.kind,
            "audio_s": audio_s,
            "share": float(np.sum(spent)) / total if total else None,
            "cpu_s_per_hour": float(np.sum(spent)) * 3600 / audio_s,
            "clock": "cpu",
            **percentiles(spent),
        }


def _play(stream: Stream, recording: PreloadedRecording) -> None:
    block = max(1, round(_BLOCK_S * recording.rate_hz))
    for start in range(0, recording.samples.size, block):
        stream.accept(recording.samples[start : start + block])
    stream.finish()
