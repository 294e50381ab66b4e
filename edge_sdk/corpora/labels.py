"""Label schemes: the same cycles as four classes, normal or abnormal, SPRSound's types, or the patient's disease.

==============  =========================================================  ======================
scheme          labels                                                     labelled items
==============  =========================================================  ======================
``four``        normal, crackle, wheeze, both                              cycles (recordings)
``binary``      normal, abnormal                                           cycles (recordings)
``sprsound7``   Normal, Rhonchi, Wheeze, Stridor, Coarse Crackle, ...      cycles of SPRSound
``sprsound3``   Normal, Adventitious, Poor Quality (task 2-1)              recordings of SPRSound
``sprsound5``   Normal, CAS, DAS, CAS & DAS, Poor Quality (task 2-2)       recordings of SPRSound
``disease``     the diagnoses of the corpus                                cycles or recordings
``raw``         as the publisher wrote them                                cycles (recordings)
==============  =========================================================  ======================
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_sdk.corpora.table import LABELS, OTHER, Corpus, Cycle, Recording
from edge_sdk.errors import CorpusError

BINARY = ("normal", "abnormal")
SPRSOUND_7 = ("Normal", "Rhonchi", "Wheeze", "Stridor", "Coarse Crackle", "Fine Crackle", "Wheeze+Crackle")
SPRSOUND_5 = ("Normal", "CAS", "DAS", "CAS & DAS", "Poor Quality")
SPRSOUND_3 = ("Normal", "Adventitious", "Poor Quality")

_HEALTHY = {"n": "healthy", "normal": "healthy"}
_SPELLING = {"plueral effusion": "pleural effusion", "bron": "bronchitis"}


@dataclass(frozen=True, slots=True)
class Scheme:
    """One row of the table above."""

    labels: tuple[str, ...] | None  # None: whatever the corpus has, sorted
    of_cycle: Callable[[Cycle, Recording], str | None] | None  # None: recordings only
    of_recording: Callable[[Recording], str | None]
    needs: str  # the missing item, for error messages


def disease_name(diagnosis: str | None) -> str | None:
    """A diagnosis in one spelling: lower case, ``healthy`` for N, several in alphabetical order.

    >>> disease_name("Heart Failure + COPD")
    'copd + heart failure'
    """
    if not diagnosis or not diagnosis.strip():
        return None
    parts = [part.strip() for part in re.split(r"\s*\+\s*|\s+and\s+|\s*&\s*", diagnosis.strip().lower())]
    names = {_HEALTHY.get(part, _SPELLING.get(part, part)) for part in parts if part}
    return " + ".join(sorted(names)) or None


def _binary_cycle(cycle: Cycle, recording: Recording) -> str | None:
    return _binary(cycle.label)


def _binary(label: str) -> str | None:
    return "normal" if label.lower() == "normal" else "abnormal" if label in (*LABELS, OTHER, "abnormal") else None


def _binary_recording(recording: Recording) -> str | None:
    return None if recording.abnormal is None else BINARY[recording.abnormal]


def _adventitious(recording: Recording) -> str | None:
    if recording.raw_label not in SPRSOUND_5:
        return None
    return "Adventitious" if recording.raw_label in ("CAS", "DAS", "CAS & DAS") else recording.raw_label


SCHEMES: dict[str, Scheme] = {
    "four": Scheme(LABELS, lambda cycle, _: cycle.label, lambda r: r.label, "one of the four classes"),
    "binary": Scheme(BINARY, _binary_cycle, _binary_recording, "whether it is normal"),
    "sprsound7": Scheme(SPRSOUND_7, lambda cycle, _: cycle.raw_label, lambda r: None, "a cycle type of SPRSound"),
    "sprsound3": Scheme(SPRSOUND_3, None, _adventitious, "a recording label of SPRSound"),
    "sprsound5": Scheme(SPRSOUND_5, None, lambda r: r.raw_label, "a recording label of SPRSound"),
    "disease": Scheme(
        None, lambda _, r: disease_name(r.diagnosis), lambda r: disease_name(r.diagnosis), "a diagnosis of the patient"
    ),
    "raw": Scheme(None, lambda cycle, _: cycle.raw_label or None, lambda r: r.raw_label, "the publisher's label"),
}
"""Label schemes by name."""


def scheme_of(name: str) -> Scheme:
    """The scheme of that name.

    Raises
    ------
    CorpusError
        There is none; the message lists the schemes.
    """
    if name not in SCHEMES:
        raise CorpusError(f"unknown label scheme {name!r}; known are {', '.join(SCHEMES)}")
    return SCHEMES[name]


def labels_for(corpus: Corpus, scheme: str) -> tuple[str, ...]:
    """The labels of a scheme, in the order of a model's outputs.

    Raises
    ------
    CorpusError
        As :func:`relabel`.
    """
    return relabel(corpus, scheme).labels


def relabel(corpus: Corpus, scheme: str, *, drop_unlabelled: bool = False) -> Corpus:
    """The same corpus with the labels of a scheme on its cycles, or on its recordings where it has no cycles.

    Start from the corpus as loaded: a scheme reads the publisher's labels, not those of an earlier scheme. Schemes of
    recordings remove the cycles, so that ``unit`` names the labelled items.

    Parameters
    ----------
    scheme
        A name of :data:`SCHEMES`.
    drop_unlabelled
        Leave out items without a label of the scheme instead of raising an error.

    Raises
    ------
    CorpusError
        Unknown scheme, no item has a label of it, or (unless ``drop_unlabelled``) some cycle or recording has none.
    """
    rule = scheme_of(scheme)
    recording_of = {recording.id: recording for recording in corpus.recordings}
    on_cycles = bool(corpus.cycles) and rule.of_cycle is not None
    if on_cycles and rule.of_cycle is not None:
        found = [rule.of_cycle(cycle, recording_of[cycle.recording_id]) for cycle in corpus.cycles]
        names = [f"cycle {cycle.index} of {cycle.recording_id}" for cycle in corpus.cycles]
    else:
        found = [rule.of_recording(recording) for recording in corpus.recordings]
        names = [recording.id for recording in corpus.recordings]
    labels = rule.labels if rule.labels is not None else tuple(sorted({label for label in found if label}))
    missing = [name for name, label in zip(names, found, strict=True) if label not in labels]
    if len(missing) == len(names):
        raise CorpusError(f"{corpus.name} has no labels for the scheme {scheme!r}: no item has {rule.needs}")
    if missing and not drop_unlabelled:
        raise CorpusError(
            f"{corpus.name}: {len(missing)} of {len(names)} have no label of the scheme {scheme!r} ({rule.needs}), "
            f"the first is {missing[0]}; choose another scheme or a split without them, or leave them out "
            "(--partial; drop_unlabelled=True in Python)"
        )
    if on_cycles:
        kept = zip(corpus.cycles, found, strict=True)
        cycles = tuple(replace(cycle, label=label) for cycle, label in kept if label is not None and label in labels)
        return replace(corpus, cycles=cycles, labels=labels)
    pairs = zip(corpus.recordings, found, strict=True)
    recordings = tuple(replace(r, label=label) for r, label in pairs if label in labels)
    return replace(corpus, recordings=recordings, cycles=(), labels=labels)


def as_cycles(corpus: Corpus) -> Corpus:
    """A corpus of labelled recordings with one cycle that covers each labelled recording.

    The training on cycles can then use ESC-50 or disease labels too.

    Raises
    ------
    CorpusError
        No recording has both a label and a known duration.
    """
    if corpus.cycles:
        return corpus
    cycles = tuple(
        Cycle(
            r.id,
            r.corpus,
            r.path,
            r.patient,
            0,
            0.0,
            r.duration_s,
            r.label,
            r.raw_label or r.label,
            r.split,
            r.site,
            r.device,
            r.age_years,
            r.sex,
            r.bmi,
        )
        for r in corpus.recordings
        if r.label is not None and r.duration_s
    )
    if not cycles:
        raise CorpusError(f"{corpus.name}: no recording has a label; relabel it first, for example by the scheme 'raw'")
    return replace(corpus, cycles=cycles)
