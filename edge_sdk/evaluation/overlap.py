"""Warnings where a model is scored on what it was trained on: such figures are worth less than they look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.transfer import check_transfer
from edge_sdk.errors import CorpusError

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus

_ANY_FOLDER = "csv"  # a corpus of this name may be any folder: only its recordings can be compared


def training_overlap(
    training: Mapping[str, Any], corpus: Corpus, split: str, train_root: str | Path | None = None
) -> list[str]:
    """What of the scored recordings the model was trained on, one line each; empty where nothing is known of that.

    Parameters
    ----------
    training
        Record of the model's training: the main corpus, the corpora joined to it, and the splits, joined by ``+``.
    corpus, split
        What is scored.
    train_root
        Folder of the main corpus: its patients and recordings are compared too.
    """
    main, learned = training.get("corpus"), training.get("split")
    if main is None or learned is None:
        return []
    splits = str(learned).split("+")
    trained_on = {main, *training.get("joined_corpora", ())} - {_ANY_FOLDER}
    if corpus.name in trained_on and (split in (learned, *splits, "all") or "all" in splits):
        return [f"the model was trained on {corpus.name} {learned}, which is scored here"]
    if train_root is None:
        return []
    try:
        for part in splits:
            check_transfer(load_corpus(main, Path(train_root), split=part, partial=True), corpus)
    except CorpusError as error:
        return [str(error)]
    return []
