"""The recordings that a training run reads: its training split and the split that it reports on; other corpora."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.labels import as_cycles, relabel
from edge_sdk.corpora.split_rules import training_sides
from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.evaluation.protocol import fold_of_patient
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import RunOptions


def load_sides(recipe: Recipe, options: RunOptions) -> Corpus:
    """The recordings of both splits under the recipe's labels, each marked with its split.

    With the split ``all`` on both sides every recording is trained on, and nothing is reported.

    Also sets the number of threads of torch to ``options.threads``.

    Raises
    ------
    CorpusError
        No such corpus or split, patients on both sides, or other labels than the recipe's.
    """
    torch.set_num_threads(options.threads)
    corpus = load_corpus(options.corpus, options.root, split="all", partial=options.partial)
    if options.train_split not in ("all", *corpus.splits):
        raise CorpusError(
            f"corpus {corpus.name} at {corpus.root} has no split {options.train_split!r}; "
            f"it has {', '.join(corpus.splits)} (--split)"
        )
    corpus = training_sides(corpus, options.train_split, options.val_split)
    if recipe.labels_scheme != "four":
        corpus = as_cycles(relabel(corpus, recipe.labels_scheme, drop_unlabelled=options.partial))
        if set(corpus.labels) != set(recipe.labels):
            raise CorpusError(
                f"scheme {recipe.labels_scheme} gives {', '.join(corpus.labels)}, the recipe has "
                f"{', '.join(recipe.labels)}; use --set labels=[{','.join(corpus.labels)}]"
            )
    return corpus


def folds_of_patients(corpora: Iterable[tuple[str, Corpus]], folds: int, seed: int) -> dict[str, int]:
    """Patient, with the prefix of the corpus before it, → fold by the development protocol.

    Raises
    ------
    RecipeError
        A corpus has fewer patients than folds.
    """
    fold: dict[str, int] = {}
    for prefix, corpus in corpora:
        try:
            found = fold_of_patient(corpus, folds, seed)
        except CorpusError as error:
            raise RecipeError(f"--cv {folds}: {error}") from error
        fold |= {prefix + patient: number for patient, number in found.items()}
    return fold


def data_folder(root: Path) -> Path:
    """Where corpora beside the main one are looked for: ``$STETHO_DATA``, else beside ``root``."""
    return Path(os.environ["STETHO_DATA"]) if "STETHO_DATA" in os.environ else root.resolve().parent


def named_folder(entry: str, root: Path) -> tuple[str, Path]:
    """Corpus and folder of a setting NAME or NAME=FOLDER.

    A relative FOLDER (by default NAME) lies in ``$STETHO_DATA``, else beside ``root``, the folder of the main corpus.

    Raises
    ------
    CorpusError
        There is no such folder.
    """
    name, _, folder = entry.partition("=")
    path = data_folder(root) / (folder or name)
    if not path.exists():
        raise CorpusError(
            f"corpus {name} for training: {path} does not exist; set STETHO_DATA to the folder that holds it, or name "
            f"it in full: {name}=/path/to/it"
        )
    return name, path


def side_of(corpus: Corpus, split: str) -> Corpus:
    """The recordings of one split."""
    return corpus.where(lambda recording: recording.split == split)
