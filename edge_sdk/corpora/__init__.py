"""Corpora of respiratory sounds in one table of recordings and annotated respiratory cycles; needs no torch."""

from edge_sdk.corpora.loading import load_corpus
from edge_sdk.corpora.registry import REGISTRY
from edge_sdk.corpora.table import (
    LABELS,
    OTHER,
    PHASES,
    SEXES,
    SITES,
    Corpus,
    Cycle,
    Fault,
    PhaseEvent,
    Recording,
    SoundEvent,
)

__all__ = [
    "LABELS",
    "OTHER",
    "PHASES",
    "REGISTRY",
    "SEXES",
    "SITES",
    "Corpus",
    "Cycle",
    "Fault",
    "PhaseEvent",
    "Recording",
    "SoundEvent",
    "load_corpus",
]
