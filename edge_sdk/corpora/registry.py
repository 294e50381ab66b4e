"""Names of corpora → loaders, and the counts that each publisher states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edge_sdk.corpora.table import Corpus
from edge_sdk.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Publication:
    """Counts that the publisher states; 0 or empty where none is stated."""

    recordings: int = 0
    patients: int = 0
    events: int = 0  # annotated cycles
    splits: tuple[tuple[str, int, int], ...] = ()  # name, recordings, events
    rate_hz: int = 0
    classes: tuple[tuple[str, tuple[int, ...]], ...] = ()  # split, events of each class in the order of LABELS
    split_patients: tuple[tuple[str, int], ...] = ()  # split, patients
    shared: tuple[str, ...] | None = None  # patients of both train and test; None: not stated
    phases: tuple[tuple[str, int], ...] = ()  # phase, marked events
    sounds: tuple[tuple[str, int], ...] = ()  # adventitious sound, marked events
    categories: int = 0  # different recording labels
    kinds: tuple[tuple[str, int], ...] = ()  # recording label, recordings


@dataclass(frozen=True, slots=True)
class CorpusEntry:
    """A row of the registry."""

    name: str
    title: str
    module: str  # with ``load(root) -> Corpus``
    published: Publication | None = None
    overrun_s: float = 0.001  # how far an event may pass the end of its audio; annotations are rounded
    licence: str = ""  # of the audio and its annotations, as their publisher states it

    @property
    def load(self) -> Callable[[Path], Corpus]:
        """The loader of this corpus: folder → corpus; imports its module."""
        loader: Callable[[Path], Corpus] = import_module(self.module).load
        return loader


_CC_BY = "CC BY 4.0"

_NOISE_OF_ESC10 = (
    "chainsaw",
    "clock_tick",
    "dog_bark",
    "fire_crackling",
    "helicopter",
    "person_sneeze",
    "rain",
    "rooster",
    "sea_waves",
)

_ENTRIES = (
    CorpusEntry(
        "sprsound",
        "SPRSound 2022",
        "edge_sdk.corpora.loaders.sprsound",
        # The publisher states the total of events; train_json has 6656 and intra_test_json 1004, so inter_test has
        # the rest.
        Publication(
            2683,
            292,
            9089,
            (("train", 1949, 6656), ("intra_test", 379, 1004), ("inter_test", 355, 1429)),
            rate_hz=8000,
        ),
        licence=_CC_BY,
    ),
    CorpusEntry("kauh", "KAUH", "edge_sdk.corpora.loaders.kauh", Publication(336, 112, rate_hz=4000), licence=_CC_BY),
    CorpusEntry(
        "hls_cmds", "HLS-CMDS lung sounds", "edge_sdk.corpora.loaders.hls_cmds", Publication(50), licence=_CC_BY
    ),
    CorpusEntry("hf_lung_clips", "HF_Lung_V1 phase clips", "edge_sdk.corpora.loaders.hf_lung_clips", licence=_CC_BY),
    CorpusEntry(
        "hf_lung_labels",
        "HF_Lung_V1 phase clips with labels",
        "edge_sdk.corpora.loaders.hf_lung_labels",
        # Counted in the part that is developed on; the publisher states no counts of clips.
        Publication(
            1355,
            111,
            1355,
            (("train", 1149, 1149), ("val", 206, 206)),
            classes=(("train", (561, 354, 217, 17)), ("val", (101, 56, 47, 2))),
            split_patients=(("train", 90), ("val", 21)),
            phases=(("inspiration", 717), ("expiration", 1000)),
            sounds=(("crackle", 509), ("wheeze", 192), ("rhonchi", 130), ("stridor", 8)),
        ),
        licence=_CC_BY,
    ),
    CorpusEntry(
        "icbhi",
        "ICBHI 2017",
        "edge_sdk.corpora.loaders.icbhi",
        Publication(
            920,
            126,
            6898,
            (("train", 539, 4142), ("test", 381, 2756)),
            classes=(("train", (2063, 1215, 501, 363)), ("test", (1579, 649, 385, 143))),
            split_patients=(("train", 79), ("test", 49)),
            shared=("156", "218"),
        ),
        overrun_s=0.25,  # cut and listed as a fault; the annotators' player rounded times
        licence="free for research (its publisher states no other terms)",
    ),
    CorpusEntry(
        "hf_lung_v1",
        "HF_Lung_V1",
        "edge_sdk.corpora.loaders.hf_lung_v1",
        Publication(
            9765,
            splits=(("train", 7809, 0), ("test", 1956, 0)),
            rate_hz=4000,
            phases=(("inspiration", 34095), ("expiration", 18349)),
            sounds=(("crackle", 15606), ("wheeze", 8457), ("rhonchi", 4740), ("stridor", 686)),
        ),
        licence=_CC_BY,
    ),
    CorpusEntry(
        "esc50",
        "ESC-50",
        "edge_sdk.corpora.loaders.esc50",
        Publication(2000, splits=tuple((f"fold{k}", 400, 0) for k in range(1, 6)), rate_hz=44100, categories=50),
        licence="CC BY-NC 3.0; the part ESC-10 is CC BY 3.0",
    ),
    CorpusEntry(
        "noise",
        "noise beside breath",
        "edge_sdk.corpora.loaders.noise",
        # Counted in the collection itself, which was put together from three sources.
        Publication(
            680,
            rate_hz=8000,
            kinds=(("baby_cry", 260), ("speech", 60), *((kind, 40) for kind in _NOISE_OF_ESC10)),
            categories=11,
        ),
        licence="donateacry-corpus: ODbL 1.0, contents DbCL 1.0; ESC-10: CC BY 3.0 (K. J. Piczak); "
        "free-spoken-digit-dataset: CC BY-SA 4.0",
    ),
    CorpusEntry("csv", "generic CSV", "edge_sdk.corpora.loaders.generic_csv"),
)

REGISTRY: dict[str, CorpusEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every corpus by name."""


def corpus_names() -> str:
    """Names for a help text: ``icbhi, sprsound, ... or csv``."""
    *names, last = REGISTRY
    return f"{', '.join(names)} or {last}"


def entry_of(name: str) -> CorpusEntry:
    """The registry's row; the case of the name and ``-`` for ``_`` do not matter.

    Raises
    ------
    CorpusError
        No such corpus; the message lists all names.
    """
    entry = REGISTRY.get(name.lower().replace("-", "_"))
    if entry is None:
        raise CorpusError(f"unknown corpus {name!r}; known are {', '.join(REGISTRY)}")
    return entry
