"""Screening of recordings: one as fast as possible, many of them in order on several cores."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, EngineError, describe
from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    CycleResult,
    Event,
    Gap,
    QualityEvent,
    VerdictName,
    VerdictReason,
)
from edge_sdk.runtime.engines.failover import EngineChanges
from edge_sdk.screening.worker import (
    Line,
    WarningCatcher,
    catch_warnings,
    end_pool,
    end_with_parent,
    log_again,
    without_interrupts,
)
from edge_sdk.signal.audio_file.headers.chunks import HeaderError
from edge_sdk.signal.audio_file.levels import ChannelWatch, float_scale
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.summary import Labels

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sources.file import Channel

_log = logging.getLogger(__name__)

_BLOCK_S = 0.5  # large blocks: nobody waits for the first sample


@dataclass(frozen=True, slots=True)
class ScreenOptions:
    """Settings that hold for every recording of one run; plain values, so that they travel to other processes."""

    bundle: str = "default"
    artefact: str | None = None
    channel: Channel = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScreenedRecords:
    """The JSON lines of one recording, or the reason why there are none."""

    source: str
    records: tuple[dict[str, Any], ...] = ()  # cycles, sounds, gaps, quality; the summary last
    error: str | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """The summary line.

        Raises
        ------
        AudioError
            The recording could not be screened.
        """
        if self.error is not None:
            raise AudioError(self.error)
        return self.records[-1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the recording although it was screened, a line for people each; see ``summary``."""
        return tuple(self.summary.get("notes", ()))


@dataclass(frozen=True)
class Screening(ScreenedRecords):
    """The result of screening one recording; all times count from its first sample.

    ``source``, ``error`` (None where screening succeeded) and ``records`` (the JSON lines of ``stetho screen``) are
    plain fields. Every property below raises :class:`~edge_sdk.errors.AudioError` where ``error`` is set.
    """

    events: tuple[Event, ...] = ()  # everything the stream emitted, provisional cycles included

    @property
    def cycles(self) -> tuple[CycleResult, ...]:
        """Respiratory cycles with label, probabilities and quality, in order of time."""
        return self._of(CycleResult)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Stretches of dropped samples."""
        return self._of(Gap)

    @property
    def adventitious(self) -> tuple[Adventitious, ...]:
        """Crackles and wheezes, found independently of the cycles; none where the bundle gives no verdicts."""
        return self._of(Adventitious)

    @property
    def verdict(self) -> VerdictName | None:
        """``normal``, ``abnormal`` or ``uncertain``; None where the bundle gives no verdicts."""
        verdict: VerdictName | None = self.summary["verdict"]
        return verdict

    @property
    def p_abnormal(self) -> float | None:
        """Calibrated probability that the recording is abnormal; None where there is no evidence, or no verdict."""
        probability: float | None = self.summary["p_abnormal"]
        return probability

    @property
    def verdict_reason(self) -> VerdictReason | None:
        """Why the verdict is uncertain; None where it is not, or where the probability lies between both thresholds."""
        reason: VerdictReason | None = self.summary["verdict_reason"]
        return reason

    @property
    def quality(self) -> tuple[QualityEvent, ...]:
        """Changes of the signal quality."""
        return self._of(QualityEvent)

    @property
    def duration_s(self) -> float:
        """Length in seconds, dropped samples included."""
        return float(self.summary["duration_s"])

    @property
    def counts(self) -> dict[str, int]:
        """Label → number of cycles."""
        return dict(self.summary["counts"])

    @property
    def respiratory_rate_bpm(self) -> float | None:
        """Cycles per minute; None where no cycle was found."""
        rate: float | None = self.summary["respiratory_rate_bpm"]
        return rate

    @property
    def abnormal_fraction(self) -> float | None:
        """Share of labelled cycles that are not normal; None where none was labelled."""
        fraction: float | None = self.summary["abnormal_fraction"]
        return fraction

    @property
    def mean_p_abnormal(self) -> float | None:
        """Mean probability of an adventitious sound over the labelled cycles; None where none was labelled."""
        mean: float | None = self.summary["mean_p_abnormal"]
        return mean

    @property
    def lost_samples(self) -> int:
        """Number of dropped samples."""
        return int(self.summary["lost_samples"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ``source``, ``summary`` and a list for each kind of event; or ``source`` and ``error``."""
        if self.error is not None:
            return {"source": self.source, "error": self.error}
        groups = {"cycles": "cycle", "gaps": "gap", "quality": "quality", "adventitious": "adventitious"}
        lists = {
            name: [{k: v for k, v in r.items() if k not in ("type", "source")} for r in self.records if r["type"] == t]
            for name, t in groups.items()
        }
        summary = {k: v for k, v in self.summary.items() if k not in ("type", "source")}
        return {"source": self.source, "summary": summary, **lists}

    def _of(self, kind: type[Any]) -> tuple[Any, ...]:
        _ = self.summary  # raises where screening failed
        return tuple(event for event in self.events if isinstance(event, kind))


def summary_labels(bundle: Bundle) -> Labels:
    """Labels of a bundle as the sinks take them."""
    return Labels(bundle.labels, bundle.classifier.normal_label)


def metrics_about(bundle: Bundle) -> dict[str, str]:
    """Bundle, version, artefact and the engine in use now, as the metrics page states them."""
    return {
        "bundle": bundle.manifest.name,
        "bundle_version": bundle.manifest.version,
        "artefact": bundle.artefact.format,
        "engine": bundle.engine.name,
    }


def screen_recording(bundle: Bundle, path: Path, options: ScreenOptions) -> Screening:
    """Screen one recording; nothing is returned before the whole recording was read.

    Raises
    ------
    AudioError
        It cannot be read, or is too short for a single cycle.
    """
    from edge_sdk.sources.file import FileSource

    with FileSource(path, channel=options.channel, block_s=_BLOCK_S) as source:
        if source.duration_s is not None:
            check_length(bundle, str(path), source.duration_s)
        screening = _play(bundle, source.name, source.sample_rate, source, options.metadata, lambda: source.notes)
        check_length(bundle, str(path), screening.duration_s)  # of a pipe it is known only now
        return screening


def screen_samples(
    bundle: Bundle,
    samples: npt.NDArray[np.floating[Any]],
    rate_hz: int,
    *,
    channel: Channel = 0,
    metadata: Mapping[str, Any] | None = None,
    name: str = "samples",
) -> Screening:
    """Screen samples in memory.

    Parameters
    ----------
    bundle
        What classifies.
    samples
        ``[n]`` or ``[n, channels]`` floats in ±1.
    rate_hz
        Samples per second.
    channel
        Number of the channel from 0, or ``"mix"`` for the mean of all.
    metadata
        Of patient and device, see :class:`~edge_sdk.runtime.stream.Stream`.
    name
        ``source`` of the result.

    Raises
    ------
    AudioError
        Not floats, not finite, no such channel, too short for a single cycle.
    StreamError
        The rate is not positive, or ``metadata`` has an unknown key.
    """
    samples = np.asarray(samples)
    frames = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim == 2:
        if channel != "mix" and not 0 <= channel < samples.shape[1]:
            raise AudioError(f"{name}: no channel {channel} in samples of shape {list(samples.shape)}; choose another")
        samples = samples.mean(axis=1) if channel == "mix" else samples[:, channel]
    elif channel not in (0, "mix"):
        raise AudioError(f"{name}: samples of one channel have no channel {channel}; leave the channel out")
    if rate_hz > 0 and samples.ndim == 1:
        check_length(bundle, name, samples.size / rate_hz)
    notes: list[str] = []
    if samples.dtype.kind == "f" and samples.ndim == 1:
        samples, notes = _in_full_scale(name, samples)
        watch = ChannelWatch(frames.shape[1], channel)
        watch.add(frames)
        notes += [note for note in (watch.note(),) if note is not None]
    step = max(1, round(_BLOCK_S * rate_hz))
    blocks = (AudioBlock(samples[i : i + step], rate_hz, i) for i in range(0, len(samples), step))
    return _play(bundle, name, rate_hz, blocks, metadata, lambda: notes)


def _in_full_scale(name: str, samples: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    try:
        scale, note = float_scale([samples])
    except HeaderError as error:
        raise AudioError(f"{name}: {error}; divide by the full scale") from error
    return (samples, []) if note is None else (samples * scale, [note])


def check_length(bundle: Bundle, name: str, seconds: float) -> None:
    """Check that ``seconds`` of audio can hold a cycle; ``name`` is for the message.

    Raises
    ------
    AudioError
        They cannot.
    """
    if seconds < bundle.shortest_s:
        length, least = _tenths(seconds, math.floor), _tenths(bundle.shortest_s, math.ceil)
        raise AudioError(f"{name} is too short: it lasts {length} s; at least {least} s are needed")


def _tenths(seconds: float, rounding: Callable[[float], int]) -> float:
    return rounding(round(10 * seconds, 6)) / 10


def _play(
    bundle: Bundle,
    name: str,
    rate_hz: int,
    blocks: Iterable[AudioBlock],
    metadata: Mapping[str, Any] | None,
    notes: Callable[[], Sequence[str]],
) -> Screening:
    records: list[dict[str, Any]] = []
    events: list[Event] = []
    stream = bundle.stream(rate_hz, metadata or None, offline=True)
    sink = JsonlSink(records.append, summary_labels(bundle))
    sink.open(name, rate_hz)

    engine = EngineChanges(bundle.engine)

    def keep(emitted: Sequence[Event]) -> None:
        for event in emitted:
            sink.event(event, None)
        events.extend(emitted)

    for block in blocks:
        sink.audio(block)
        keep(stream.accept(block))
    keep(stream.finish())
    for change in engine.take():
        sink.health(change)
    sink.close(replace(stream.stats, notes=(*notes(), *stream.notes)))
    return Screening(name, tuple(records), None, tuple(events))


def screen_many(bundle: Bundle, paths: Sequence[Path], options: ScreenOptions, *, jobs: int = 1) -> Iterator[Screening]:
    """Screen recordings one after another, or on several cores; results come in the order of ``paths``.

    A faulty recording gives a :class:`Screening` with ``error`` set.

    Raises
    ------
    EngineError
        A worker process was killed.
    """
    if jobs == 1 or len(paths) == 1:
        for path in paths:
            yield screen_safely(bundle, path, options)
        return
    import multiprocessing  # not for one recording: it takes long to load
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # threads of the engine do not survive a fork
    pool = ProcessPoolExecutor(min(jobs, len(paths)), context, initializer=_start_worker, initargs=(options,))
    finished = False
    try:
        with without_interrupts():
            results = pool.map(_screen_in_worker, paths)
        for screening, logged in results:
            log_again(logged)
            yield screening
        finished = True
    except BrokenProcessPool as error:
        raise EngineError("a worker process was killed (out of memory?); use fewer --jobs") from error
    finally:
        end_pool(pool, now=not finished)  # Ctrl-C, or the caller wants no more


def screen_safely(bundle: Bundle, path: Path, options: ScreenOptions) -> Screening:
    """As :func:`screen_recording`, with the reason of a failure in ``error`` instead of an exception."""
    try:
        return screen_recording(bundle, path, options)
    except Exception as error:  # whatever is wrong with one recording, the others shall be screened
        _log.debug("%s", path, exc_info=True)
        return Screening(str(path), error=describe(error))


_worker: tuple[Bundle, ScreenOptions, WarningCatcher] | None = None


def _start_worker(options: ScreenOptions) -> None:
    global _worker
    from edge_sdk.runtime.bundle.load import load_bundle

    end_with_parent()
    catcher = catch_warnings()
    _worker = load_bundle(options.bundle, artefact=options.artefact), options, catcher


def _screen_in_worker(path: Path) -> tuple[Screening, list[Line]]:
    assert _worker is not None
    bundle, options, catcher = _worker
    return screen_safely(bundle, path, options), catcher.take()
