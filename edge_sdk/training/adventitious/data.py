"""Training data in memory: log-mel frames of recordings with labelled cycles, of noise, of heart sounds."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.table import Cycle, Recording
from edge_sdk.errors import CorpusError
from edge_sdk.models.adventitious import SOUNDS
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.bank import AudioBank, Progress
from edge_sdk.training.classification.data import heart_recordings
from edge_sdk.training.data_identity import digest_of
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection

EVENT_CORPORA = frozenset({"sprsound"})
"""Corpora whose annotated cycles are bounds of a sound; elsewhere the sound is somewhere in the cycle."""

FOLDERS = {"hf_lung_labels": "hf_lung_phase_clips"}
"""Folders beside the corpus root that have another name than their corpus."""

_SHORT_S = 2.0  # shorter recordings of one origin are joined: one-second clips are no recordings
_OF_LABEL = {"normal": (False, False), "crackle": (True, False), "wheeze": (False, True), "both": (True, True)}

Mel = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SoundRecording:
    """One recording and what is known of its crackles and wheezes."""

    name: str
    corpus: str
    patient: str  # unique over corpora
    device: str
    mel: Mel  # [T, M] log-mel
    spans_s: Floats  # [k, 2] annotated cycles
    sounds: npt.NDArray[np.bool_]  # [k, 2] crackle and wheeze of each
    strong: bool  # the spans are bounds of the sounds
    label: tuple[bool, bool] | None  # crackle and wheeze of the recording; None: by its cycles
    noise: bool = False  # without breath sounds
    audio: str = ""  # checksum of its files' samples
    clips_s: tuple[tuple[str, float], ...] = ()  # of joined clips: name and begin of each

    @property
    def present(self) -> tuple[bool, bool]:
        """Crackle and wheeze somewhere in the recording."""
        if self.label is not None:
            return self.label
        if not len(self.sounds):
            return False, False
        return bool(self.sounds[:, 0].any()), bool(self.sounds[:, 1].any())

    @property
    def abnormal(self) -> bool:
        """Whether it holds an adventitious sound."""
        return any(self.present)


@dataclass(frozen=True)
class AdventitiousData:
    """Everything a run may see."""

    recordings: tuple[SoundRecording, ...]  # of the main corpus
    extra: tuple[SoundRecording, ...]  # of other corpora
    noise: tuple[SoundRecording, ...]
    poor: tuple[Mel, ...]  # recordings of quality Poor
    hearts: tuple[Mel, ...]
    corpora: tuple[Corpus, ...]  # that the recordings come from, the noise corpus included
    background: str = ""  # checksum of poor recordings and hearts

    @property
    def all(self) -> tuple[SoundRecording, ...]:
        """Every recording with labels, noise left out."""
        return (*self.recordings, *self.extra)

    def without(self, patients: Collection[str]) -> AdventitiousData:
        """The same data without these patients (and sources of noise)."""

        def kept(recordings: Iterable[SoundRecording]) -> tuple[SoundRecording, ...]:
            return tuple(r for r in recordings if r.patient not in patients)

        return replace(
            self, recordings=kept(self.recordings), extra=kept(self.extra), noise=kept(self.noise)
        )  # fmt: skip


def load_adventitious_data(
    corpus: Corpus,
    spec: FrontEndSpec,
    settings: AdventitiousSection,
    *,
    split: str,
    heart_corpus: str | None,
    partial: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> AdventitiousData:
    """Read the corpus and what lies beside it.

    Parameters
    ----------
    corpus
        Recordings of the training split.
    spec, settings
        Of the recipe.
    split
        Of the other corpora, where they have it; all of them otherwise.
    heart_corpus
        Folder of heart sounds; None: none.
    partial
        Go on without the files of the other corpora that are missing or damaged.
    cache, progress
        As :meth:`AudioBank.load`.

    Raises
    ------
    CorpusError
        No labelled cycles, or a corpus is not where it is looked for.
    AudioError
        A recording that cannot be read.
    """
    root = Path(corpus.root)
    others = [_beside(root, entry, split, partial=partial) for entry in settings.extra]
    main = sound_recordings(corpus, spec, cache=cache, progress=progress)
    if not main:
        raise CorpusError(f"corpus {corpus.name} at {corpus.root} holds no labelled recording to train on")
    extra = [r for other in others for r in sound_recordings(other, spec, cache=cache, progress=progress)]
    entry = settings.noise_corpus
    noise_corpus = None if entry is None else _beside(root, entry, "all", partial=partial)
    noise = [] if noise_corpus is None else noise_recordings(noise_corpus, spec, cache=cache, progress=progress)
    paths = [] if heart_corpus is None else heart_recordings(root, heart_corpus)
    hearts, of_hearts = _mels(paths, spec, cache, progress)
    poor, of_poor = _mels([r.path for r in corpus.recordings if r.quality_poor], spec, cache, progress)
    corpora = (corpus, *others, *((noise_corpus,) if noise_corpus is not None else ()))
    return AdventitiousData(
        tuple(main), tuple(extra), tuple(noise), tuple(poor), tuple(hearts), corpora, digest_of(of_hearts, of_poor)
    )


def sound_recordings(
    corpus: Corpus, spec: FrontEndSpec, *, cache: Path | None = None, progress: Progress | None = None
) -> list[SoundRecording]:
    """The labelled recordings of a corpus; clips of one origin are joined.

    Recordings of quality Poor, and those whose label is none of the four classes, are left out.

    Raises
    ------
    AudioError
        A recording that cannot be read.
    """
    cycles: dict[str, list[Cycle]] = {}
    for cycle in corpus.cycles:
        if cycle.label in _OF_LABEL:
            cycles.setdefault(cycle.recording_id, []).append(cycle)
    chosen = [r for r in corpus.recordings if not r.quality_poor and (r.id in cycles or r.label in _OF_LABEL)]
    if not chosen:
        return []
    mels = zip(*_mels([r.path for r in chosen], spec, cache, progress), strict=True)
    found = [_labelled(r, mel, cycles.get(r.id, []), audio) for r, (mel, audio) in zip(chosen, mels, strict=True)]
    return list(_joined(found, spec))


def noise_recordings(
    corpus: Corpus, spec: FrontEndSpec, *, cache: Path | None = None, progress: Progress | None = None
) -> list[SoundRecording]:
    """Recordings without breath sounds: neither crackle nor wheeze; the device is the kind of noise."""
    mels = zip(*_mels([r.path for r in corpus.recordings], spec, cache, progress), strict=True)
    nothing = np.zeros((0, 2))
    return [
        SoundRecording(
            r.id, corpus.name, f"{corpus.name}/{r.patient}", r.raw_label or "", mel, nothing,
            nothing.astype(np.bool_), False, (False, False), True, audio,
        )
        for r, (mel, audio) in zip(corpus.recordings, mels, strict=True)
        if len(mel)
    ]  # fmt: skip


def _labelled(recording: Recording, mel: Mel, cycles: Sequence[Cycle], audio: str) -> SoundRecording:
    ordered = sorted(cycles, key=lambda cycle: cycle.start_s)
    return SoundRecording(
        recording.id,
        recording.corpus,
        f"{recording.corpus}/{recording.patient}",
        recording.device or "",
        mel,
        np.array([(c.start_s, c.end_s) for c in ordered], dtype=np.float64).reshape(-1, 2),
        np.array([_OF_LABEL[c.label] for c in ordered], dtype=np.bool_).reshape(-1, len(SOUNDS)),
        recording.corpus in EVENT_CORPORA,
        _OF_LABEL.get(recording.label or ""),
        audio=audio,
    )


def _joined(recordings: Sequence[SoundRecording], spec: FrontEndSpec) -> Iterator[SoundRecording]:
    """Clips of one origin one after another as one recording; longer recordings as they are."""
    hop_s = spec.hop_samples / spec.rate_hz

    def origin(recording: SoundRecording) -> str:
        short = len(recording.mel) * hop_s < _SHORT_S
        return recording.name.rsplit("_", 1)[0] if short else recording.name

    for name, group in groupby(sorted(recordings, key=lambda r: r.name), key=origin):
        clips = list(group)
        if len(clips) == 1:
            yield clips[0]
            continue
        places = np.concatenate(([0], np.cumsum([len(clip.mel) for clip in clips])[:-1])) * hop_s
        yield replace(
            clips[0],
            name=name,
            mel=np.concatenate([clip.mel for clip in clips]),
            spans_s=np.concatenate([clip.spans_s + place for clip, place in zip(clips, places, strict=True)]),
            sounds=np.concatenate([clip.sounds for clip in clips]),
            audio=digest_of([clip.audio for clip in clips]),
            clips_s=tuple((clip.name, place) for clip, place in zip(clips, places.tolist(), strict=True)),
        )


def _beside(root: Path, entry: str, split: str, *, partial: bool) -> Corpus:
    """A corpus ``NAME=FOLDER``, or ``NAME`` in ``$STETHO_DATA``, else beside the corpus root."""
    name, equals, folder = entry.partition("=")
    data = Path(os.environ["STETHO_DATA"]) if "STETHO_DATA" in os.environ else root.resolve().parent
    path = Path(folder) if equals else data / FOLDERS.get(name, name)
    if not path.is_dir():
        raise CorpusError(
            f"adventitious.extra, adventitious.noise_corpus: no folder {path} for {name}; write NAME=FOLDER, set "
            "STETHO_DATA, or go on without it with --set adventitious.noise_corpus=null"
        )
    corpus = load_corpus(name, path, partial=partial)
    return corpus.split(split) if split in corpus.splits else corpus


def _mels(
    paths: Sequence[Path], spec: FrontEndSpec, cache: Path | None, progress: Progress | None
) -> tuple[list[Mel], tuple[str, ...]]:
    """Log-mel ``[T, M]`` of each file, empty where it is shorter than a frame; and checksums of their samples."""
    if not paths:
        return [], ()
    bank = AudioBank.load(paths, spec, cache=cache, progress=progress)
    front_end = FoldedFrontEnd(spec)
    found = []
    with torch.no_grad():
        for start, length in zip(bank.starts.tolist(), bank.lengths.tolist(), strict=True):
            wave = bank.samples[start : start + length]
            if spec.frames_of(length):
                found.append(front_end.log_mel(wave[None])[0].T.contiguous().numpy().astype(np.float16))
            else:
                found.append(np.zeros((0, spec.mel_bins), np.float16))
    return found, bank.digests
