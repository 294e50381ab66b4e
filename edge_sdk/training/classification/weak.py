"""Weak labels: the cycles of recordings that have a label of their own but no annotated cycle.

Normal recordings have normal cycles. In an abnormal one only some cycles hold the sound: those that a model ranks as
most abnormal take the recording's label, the others are not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import Corpus
from edge_sdk.corpora.audio import cut, read_recording
from edge_sdk.corpora.table import Cycle, Recording
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.model import ModelUnderTest, load_model
from edge_sdk.evaluation.predict import stream_events
from edge_sdk.events import CycleResult
from edge_sdk.metadata import metadata_of
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.recipes.joint_settings import JointSection

_USED, _LEFT_OUT = "weak", "weak, unused"  # keys of sampling.WEAK_LABELS


class RankedSpan(NamedTuple):
    """A stretch of a recording and how abnormal a model takes it to be."""

    start_s: float
    end_s: float
    p_abnormal: float


def with_weak_cycles(corpus: Corpus, settings: JointSection, progress: Progress | None = None) -> Corpus:
    """A corpus of labelled recordings with cycles; ``raw_label`` is ``weak``, or ``weak, unused`` of those left out.

    Recordings whose label is none of the classes (bronchial breathing, pleural rub) are left out.

    Raises
    ------
    CorpusError
        No recording has a label.
    BundleError, CheckpointError
        ``settings.weak_model`` or ``settings.weak_segmenter`` is no usable model.
    """
    labelled = corpus.where(lambda recording: recording.label in corpus.labels)
    if not labelled.recordings:
        raise CorpusError(f"{corpus.name} at {corpus.root} labels neither cycles nor recordings; leave it out of extra")
    model = load_model(settings.weak_model)
    if settings.weak_segmenter:
        finder = load_model(settings.weak_segmenter)
        model = replace(model, segmenter=finder.segmenter, quality=finder.quality)
    cycles: list[Cycle] = []
    for done, recording in enumerate(labelled.recordings):
        found = ranked_spans(model, recording, settings)
        share = settings.weak_share if recording.label != corpus.labels[0] else 1.0
        chosen = most_abnormal(found, share)
        cycles += [
            _cycle(recording, index, span, _USED if index in chosen else _LEFT_OUT) for index, span in enumerate(found)
        ]
        if progress is not None:
            progress(f"finding the cycles of {corpus.name}", done + 1, len(labelled.recordings))
    return replace(labelled, cycles=tuple(cycles))


def most_abnormal(spans: list[RankedSpan], share: float) -> set[int]:
    """Indices of this share of the spans, rounded up: those of the highest probability."""
    order = sorted(range(len(spans)), key=lambda index: -spans[index].p_abnormal)
    return set(order[: int(np.ceil(share * len(spans) - 1e-9))])


def ranked_spans(model: ModelUnderTest, recording: Recording, settings: JointSection) -> list[RankedSpan]:
    """The cycles that the model's stream finds and classifies; windows where it finds none or none are wanted.

    Raises
    ------
    AudioError
        A recording that cannot be read.
    """
    samples, rate = read_recording(recording.path)
    found: list[RankedSpan] = []
    if settings.weak_segmenter:
        normal = model.classifier.normal_label
        found = [
            RankedSpan(event.cycle.onset / rate, event.cycle.end / rate, 1.0 - event.probabilities[normal])
            for event in stream_events(model, samples, rate, metadata_of(recording))
            if isinstance(event, CycleResult) and event.label is not None
        ]
    return found or list(_windows(model, samples, rate, settings.weak_window_s))


def _windows(
    model: ModelUnderTest, samples: npt.NDArray[np.float32], rate: int, length_s: float
) -> Iterator[RankedSpan]:
    classifier, spec = model.classifier, model.classifier.front_end
    at_rate = resample(samples, rate, spec.rate_hz)
    count = max(1, int(at_rate.size / spec.rate_hz / length_s))
    ends = [min((index + 1) * length_s, at_rate.size / spec.rate_hz) for index in range(count)]
    windows = [fit_window(cut(at_rate, spec.rate_hz, index * length_s, end), spec) for index, end in enumerate(ends)]
    abnormal = 1.0 - classifier.classify(np.stack(windows))[:, classifier.normal_index]
    for index, (end, p_abnormal) in enumerate(zip(ends, abnormal.tolist(), strict=True)):
        yield RankedSpan(index * length_s, end, p_abnormal)


def _cycle(recording: Recording, index: int, span: RankedSpan, raw_label: str) -> Cycle:
    return Cycle(
        recording.id,
        recording.corpus,
        recording.path,
        recording.patient,
        index,
        span.start_s,
        span.end_s,
        recording.label or "",
        raw_label,
        recording.split,
        recording.site,
        recording.device,
        recording.age_years,
        recording.sex,
        recording.bmi,
    )
