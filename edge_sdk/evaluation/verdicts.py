"""Running verdicts of whole recordings: what a model's stream determines from the first seconds of audio on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.audio import read_recording
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.predict import stream_events
from edge_sdk.events import CycleResult, Event, Verdict
from edge_sdk.metadata import metadata_of
from edge_sdk.metrics.verdict import VerdictName, VerdictTrace

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus, Recording
    from edge_sdk.evaluation.model import ModelUnderTest
    from edge_sdk.evaluation.predict import Progress


class VerdictReader(Protocol):
    """Reads the running verdict off the events of one stream."""

    def event(self, event: Event) -> float | None:
        """Take the next event; seconds of audio consumed where it changed the probability, else ``None``."""

    @property
    def p_abnormal(self) -> float | None:
        """Probability of abnormal now; ``None`` before the first."""

    @property
    def verdict(self) -> VerdictName:
        """Verdict now."""


Reader: TypeAlias = "Callable[[ModelUnderTest], VerdictReader]"


class MeanOfCycles:
    """The verdict of a model without one: the mean of the probabilities of the labelled cycles so far.

    It is ``uncertain`` only where no cycle was labelled.
    """

    def __init__(self, model: ModelUnderTest) -> None:
        self._classifier = model.classifier
        self._sum: npt.NDArray[np.float64] = np.zeros(len(model.classifier.labels))
        self._count = 0

    def event(self, event: Event) -> float | None:
        """Add the cycle of a ``CycleResult`` with a label."""
        if not isinstance(event, CycleResult) or event.label is None:
            return None
        self._sum += [event.probabilities[label] for label in self._classifier.labels]
        self._count += 1
        return event.cycle.emitted_at / event.cycle.sample_rate

    @property
    def p_abnormal(self) -> float | None:
        """One minus the mean probability of the normal label."""
        return 1.0 - float(self._sum[self._classifier.normal_index]) / self._count if self._count else None

    @property
    def verdict(self) -> VerdictName:
        """The classifier's decision on the mean probabilities."""
        if not self._count:
            return "uncertain"
        decided = int(self._classifier.decide((self._sum / self._count)[None])[0])
        return "normal" if decided == self._classifier.normal_index else "abnormal"


class VerdictEvents:
    """The verdict of a model that gives one: its own running verdicts, from 6 s of usable audio on."""

    def __init__(self) -> None:
        self._last: Verdict | None = None

    def event(self, event: Event) -> float | None:
        """Take the newest ``Verdict``."""
        if not isinstance(event, Verdict):
            return None
        self._last = event
        return event.at_s

    @property
    def p_abnormal(self) -> float | None:
        """The calibrated probability of the last one."""
        return None if self._last is None else self._last.p_abnormal

    @property
    def verdict(self) -> VerdictName:
        """The last one; without any, ``uncertain``."""
        return "uncertain" if self._last is None else self._last.verdict


def verdict_reader(model: ModelUnderTest) -> VerdictReader:
    """A reader of the model's own verdicts where it gives them, else of the mean of its cycles."""
    return MeanOfCycles(model) if model.verdict is None else VerdictEvents()


def recording_truth(corpus: Corpus) -> Mapping[str, bool]:
    """Recording → abnormal.

    The publisher's labels of recordings where the corpus has any; else a recording with annotated cycles is abnormal
    when one of them is.

    Raises
    ------
    CorpusError
        Neither recordings nor cycles are labelled.
    """
    labelled = {r.id: r.abnormal for r in corpus.recordings if r.abnormal is not None}
    if labelled:
        return labelled
    abnormal: dict[str, bool] = {}
    for cycle in corpus.cycles:
        abnormal[cycle.recording_id] = abnormal.get(cycle.recording_id, False) or cycle.label != "normal"
    if not abnormal:
        raise CorpusError(f"{corpus.name} at {corpus.root} labels no recording normal or abnormal; nothing to score")
    return abnormal


def read_verdicts(
    model: ModelUnderTest, corpus: Corpus, progress: Progress | None = None, reader: Reader = verdict_reader
) -> list[VerdictTrace]:
    """Stream every labelled recording once and follow its running verdict.

    Parameters
    ----------
    model, corpus
        What is evaluated, and on what.
    progress
        Callback.
    reader
        Makes the reader of one stream.

    Raises
    ------
    CorpusError
        No recording is labelled.
    AudioError
        A recording that cannot be read.
    """
    truth = recording_truth(corpus)
    recordings = [recording for recording in corpus.recordings if recording.id in truth]
    traces = []
    for done, recording in enumerate(recordings, 1):
        traces.append(_trace(model, recording, truth[recording.id], reader(model)))
        if progress is not None:
            progress("recordings", done, len(recordings))
    return traces


def _trace(model: ModelUnderTest, recording: Recording, abnormal: bool, reader: VerdictReader) -> VerdictTrace:
    samples, rate = read_recording(recording.path)
    events = stream_events(model, samples, rate, metadata_of(recording))
    return follow_verdict(recording, samples.size / rate, abnormal, events, reader)


def follow_verdict(
    recording: Recording, duration_s: float, abnormal: bool, events: Iterable[Event], reader: VerdictReader
) -> VerdictTrace:
    """The running verdict that a reader takes from the events of one stream; ``abnormal`` is the truth."""
    times_s, probabilities = [], []
    for event in events:
        at_s = reader.event(event)
        if at_s is not None and reader.p_abnormal is not None:
            times_s.append(at_s)
            probabilities.append(reader.p_abnormal)
    return VerdictTrace(
        recording.id,
        recording.patient,
        recording.device,
        duration_s,
        abnormal,
        times_s,
        probabilities,
        reader.verdict,
    )
