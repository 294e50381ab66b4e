"""Corpora of respiratory sounds behind one table of recordings and annotated breaths. Without torch."""

from edge_sdk.corpora.loading import REGISTRY, load_corpus
from edge_sdk.corpora.table import LABELS, OTHER, SEXES, SITES, Corpus, Cycle, Fault, Recording

__all__ = ["LABELS", "OTHER", "REGISTRY", "SEXES", "SITES", "Corpus", "Cycle", "Fault", "Recording", "load_corpus"]
