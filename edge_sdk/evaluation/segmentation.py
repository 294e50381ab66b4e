"""Run a bundle's segmenter over recordings as a stream, and pair the found cycles with the annotated ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import CorpusError
from edge_sdk.metrics.detections import DetectedCycles
from edge_sdk.metrics.events import ScoredRecording

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus, Cycle, PhaseEvent, Recording
    from edge_sdk.evaluation.model import ModelUnderTest
    from edge_sdk.evaluation.predict import Progress
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.sources.phantom import Scenario

BLOCK_S = 0.1  # of audio per call; the events do not depend on it
PHANTOM_SEEDS = range(1_000_100, 1_000_110)
PHANTOM_S = 60.0
RANDOM_PHANTOMS = 120
RANDOM_PHANTOM_SEED = 1_001_000
RANDOM_RATES_BPM = (8.0, 80.0)
RANDOM_SNR_DB = (10.0, 32.0)


def detect_cycles(
    bundle: Bundle | ModelUnderTest,
    samples: npt.NDArray[np.float32],
    rate: int,
    metadata: Mapping[str, Any] | None = None,
) -> DetectedCycles:
    """Cycles that a new stream of ``bundle`` finds in ``[n]`` samples at ``rate`` Hz."""
    found, stream = DetectedCycles(), bundle.stream(rate, metadata)
    step = max(1, round(BLOCK_S * rate))
    for begin in range(0, samples.size, step):
        for event in stream.accept(samples[begin : begin + step]):
            found.event(event)
    for event in stream.finish():
        found.event(event)
    return found.finish()


# -- corpora -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnnotatedCycles:
    """The annotated cycles and phases of a corpus by recording."""

    cycles: Mapping[str, Sequence[Cycle]]  # by onset
    phases: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]

    @classmethod
    def of(cls, corpus: Corpus) -> AnnotatedCycles:
        """Those of a corpus.

        Raises
        ------
        CorpusError
            Nothing is annotated.
        """
        return cls(_annotated(corpus), _phases(corpus))

    def scored(self, recording: Recording, duration_s: float, found: DetectedCycles) -> ScoredRecording:
        """The annotated cycles of a recording beside those that a stream found."""
        cycles, rate = self.cycles[recording.id], found.rate
        return ScoredRecording(
            recording.id,
            recording.patient,
            duration_s,
            _spans(cycles),
            found.spans,
            [c.label for c in cycles],
            found.labels,
            found.probabilities,
            found.announcements,
            truth_phases=self.phases.get(recording.id, {}),
            found_phases=found.phases,
            found_rate_bpm=rate.breaths_per_minute,
            rate_confident=rate.confident,
            found_audible=found.audible,
        )


def score_corpus(bundle: Bundle | ModelUnderTest, corpus: Corpus, progress: Progress) -> list[ScoredRecording]:
    """Every recording with at least one annotated cycle, run as a stream.

    Raises
    ------
    CorpusError
        Nothing is annotated.
    AudioError
        A recording that cannot be read.
    """
    from edge_sdk.corpora.audio import read_recording

    annotated = AnnotatedCycles.of(corpus)
    recordings = [r for r in corpus.recordings if r.id in annotated.cycles]
    rows = []
    for done, recording in enumerate(recordings, 1):
        samples, rate = read_recording(recording.path)
        rows.append(annotated.scored(recording, samples.size / rate, detect_cycles(bundle, samples, rate)))
        progress("recordings", done, len(recordings))
    return rows


def score_lines(corpus: Corpus, path: Path, *, partial: bool) -> list[ScoredRecording]:
    """The cycles in the JSON lines of ``stetho screen`` instead of a stream, without times of emission.

    Raises
    ------
    CorpusError
        The file is unreadable, or recordings of the corpus are missing in it (unless ``partial``).
    """
    annotated, phases = _annotated(corpus), _phases(corpus)
    screened = _read_lines(path)
    missing = [name for name in annotated if name not in screened]
    if missing and (not partial or len(missing) == len(annotated)):
        raise CorpusError(
            f"{path} lacks {len(missing)} of {len(annotated)} annotated recordings ({missing[0]} …); "
            "screen all of them, or score the others with --partial"
        )
    rows = []
    for recording in corpus.recordings:
        if recording.id not in annotated or recording.id not in screened:
            continue
        cycles, (lines, rate) = annotated[recording.id], screened[recording.id]
        spans = np.array([(line["start_s"], line["end_s"]) for line in lines], dtype=np.float64).reshape(-1, 2)
        duration_s = recording.duration_s or max(spans[:, 1].max(initial=0.0), cycles[-1].end_s)
        rows.append(
            ScoredRecording(
                recording.id,
                recording.patient,
                duration_s,
                _spans(cycles),
                spans,
                [c.label for c in cycles],
                [line["label"] for line in lines],
                [line["probabilities"] for line in lines],
                truth_phases=phases.get(recording.id, {}),
                found_rate_bpm=rate,
            )
        )
    return rows


def _read_lines(path: Path) -> dict[str, tuple[list[dict[str, Any]], float | None]]:
    """Recording (file name without suffix) → its cycle lines by onset, and the respiratory rate of its summary."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read {path} ({error}); give a file of 'stetho screen --json'") from error
    found: dict[str, list[dict[str, Any]]] = {}
    rates: dict[str, float | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            if record["type"] in ("cycle", "summary"):
                name = Path(record["source"]).stem
                lines = found.setdefault(name, [])
                if record["type"] == "summary":
                    rates[name] = record.get("respiratory_rate_bpm")
                else:
                    given = {"probabilities": dict(record.get("probabilities") or {})}
                    lines.append({key: record[key] for key in ("start_s", "end_s", "label")} | given)
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}, line {number}: no line of 'stetho screen --json' ({error!r})") from error
    for lines in found.values():
        lines.sort(key=lambda line: line["start_s"])
    return {name: (lines, rates.get(name)) for name, lines in found.items()}


def _annotated(corpus: Corpus) -> dict[str, list[Cycle]]:
    groups: dict[str, list[Cycle]] = {}
    for cycle in corpus.cycles:
        groups.setdefault(cycle.recording_id, []).append(cycle)
    if not groups:
        raise CorpusError(f"{corpus.name} at {corpus.root} marks no breaths; a segmenter cannot be scored on it")
    for cycles in groups.values():
        cycles.sort(key=lambda c: c.start_s)
    return groups


def _phases(corpus: Corpus) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    groups: dict[str, dict[str, list[PhaseEvent]]] = {}
    for event in corpus.phases:
        groups.setdefault(event.recording_id, {}).setdefault(event.phase, []).append(event)
    return {name: {phase: _spans(events) for phase, events in found.items()} for name, found in groups.items()}


def _spans(events: Sequence[Cycle | PhaseEvent]) -> npt.NDArray[np.float64]:
    return np.array([(e.start_s, e.end_s) for e in events], dtype=np.float64).reshape(-1, 2)


# -- simulated patients ------------------------------------------------------------------------------------------------


def score_phantoms(
    bundle: Bundle | ModelUnderTest,
    progress: Progress,
    seeds: Iterable[int] = PHANTOM_SEEDS,
    seconds: float = PHANTOM_S,
) -> tuple[list[ScoredRecording], int]:
    """Every scenario with every seed, and the number of found cycles inside an apnoea (more than 1 s from its ends)."""
    from edge_sdk.sources.phantom import SCENARIOS

    given = list(seeds)
    patients = [(f"{name}-{seed}", scenario, seed) for name, scenario in SCENARIOS.items() for seed in given]
    return _score_patients(bundle, patients, seconds, progress)


def score_random_phantoms(
    bundle: Bundle | ModelUnderTest, progress: Progress, count: int = RANDOM_PHANTOMS, seconds: float = PHANTOM_S
) -> tuple[list[ScoredRecording], int]:
    """As :func:`score_phantoms`, over the first ``count`` patients of :func:`random_phantoms`."""
    patients = [(f"random-{seed}", scenario, seed) for seed, scenario in random_phantoms(count)]
    return _score_patients(bundle, patients, seconds, progress)


def random_phantoms(count: int = RANDOM_PHANTOMS) -> Iterator[tuple[int, Scenario]]:
    """Seed and scenario of simulated patients that no training uses: any rate, pauses, apnoea in a third, SNR >= 10 dB.

    The set is the same at every call; a larger one begins with the smaller one.
    """
    from edge_sdk.sources.phantom import random_scenario

    for seed in range(RANDOM_PHANTOM_SEED, RANDOM_PHANTOM_SEED + count):
        random = np.random.default_rng(seed)
        yield seed, random_scenario(random, RANDOM_RATES_BPM, snr_db=RANDOM_SNR_DB, apnoea_share=1 / 3)


def _score_patients(
    bundle: Bundle | ModelUnderTest, patients: Sequence[tuple[str, Scenario, int]], seconds: float, progress: Progress
) -> tuple[list[ScoredRecording], int]:
    rows, invented = [], 0
    for done, (name, scenario, seed) in enumerate(patients, 1):
        row, pauses = _phantom(bundle, name, scenario, seed, seconds)
        rows.append(row)
        invented += sum(b > p + 1.0 and e < q - 1.0 for b, e in row.found.tolist() for p, q in pauses)
        progress("simulated patients", done, len(patients))
    return rows, invented


def _phantom(
    bundle: Bundle | ModelUnderTest, name: str, scenario: Scenario, seed: int, seconds: float
) -> tuple[ScoredRecording, list[tuple[float, float]]]:
    from edge_sdk.sources.phantom import PhantomSource

    with PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=4000) as source:
        samples = np.concatenate([block.samples for block in source])
        truth = list(source.truth)
        pauses = [(p.begin_s, p.end_s) for p in source.apnoeas]
    found = detect_cycles(bundle, samples, 4000)
    rate = found.rate
    cycles = np.array([(t.start_s, t.end_s) for t in truth], dtype=np.float64).reshape(-1, 2)
    row = ScoredRecording(
        name,
        name,
        samples.size / 4000,
        cycles,
        found.spans,
        [t.label for t in truth],
        found.labels,
        found.probabilities,
        found.announcements,
        truth_phases=dict(_true_phases(truth)),
        found_phases=found.phases,
        found_rate_bpm=rate.breaths_per_minute,
        rate_confident=rate.confident,
        found_audible=found.audible,
    )
    return row, pauses


def _true_phases(truth: Sequence[Any]) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    turns = np.array(
        [(t.start_s, t.phase_change / t.sample_rate, t.end_s) for t in truth if t.phase_change is not None],
        dtype=np.float64,
    ).reshape(-1, 3)
    yield "inspiration", turns[:, :2]
    yield "expiration", turns[:, 1:]
