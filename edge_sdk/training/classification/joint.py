"""The recordings of a classifier's run: the main corpus, and those that ``joint`` adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.split_rules import training_sides
from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.classification.weak import with_weak_cycles
from edge_sdk.training.corpus import folds_of_patients, load_sides, named_folder
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import RunOptions


def load_classifier_sides(recipe: Recipe, options: RunOptions, progress: Progress | None = None) -> Corpus:
    """The recordings of both splits of every corpus, each marked with its split, as one corpus.

    Recordings and patients of ``joint.extra`` are named ``corpus/name``. A corpus with labelled recordings alone gets
    cycles with weak labels; one without splits is trained on as a whole. Those of ``joint.unlabelled`` have no cycles.

    Raises
    ------
    CorpusError
        A corpus or split is missing, patients are on both sides, or other labels than the recipe's.
    RecipeError
        Clips without labels have no teacher.
    """
    joint = recipe.joint
    if joint.unlabelled and not joint.teacher:
        raise RecipeError(
            f"recipe {recipe.name} needs a network that labels {', '.join(joint.unlabelled)}: "
            "train compact-joint and give --set joint.teacher=RUN/checkpoint.pt, in a cross-validation "
            "RUN/fold-{fold}/checkpoint.pt"
        )
    corpus = load_sides(recipe, options)
    parts = [corpus, *(_extra(entry, recipe, options, progress) for entry in joint.extra)]
    parts += [_unlabelled(entry, parts, options) for entry in joint.unlabelled]
    if joint.noise:
        parts.append(_noise(joint.noise, joint.noise_held_out, options))
    whole = replace(
        corpus,
        recordings=tuple(recording for part in parts for recording in part.recordings),
        cycles=tuple(cycle for part in parts for cycle in part.cycles),
    )
    return _on_side(whole, options.train_split) if joint.all_patients else whole


def joint_folds(recipe: Recipe, options: RunOptions, folds: int, seed: int) -> dict[str, int]:
    """Patient, as :func:`load_classifier_sides` names them, → fold by the development protocol, of every corpus.

    Raises
    ------
    RecipeError
        A corpus has fewer patients than folds.
    CorpusError
        As :func:`load_classifier_sides`.
    """
    others = [_sides_of(entry, options) for entry in recipe.joint.extra]
    corpora = [("", load_sides(recipe, options)), *((f"{corpus.name}/", corpus) for corpus in others)]
    return folds_of_patients(corpora, folds, seed)


def trained_split(recipe: Recipe, options: RunOptions) -> str:
    """Name of what a run trains on, for its provenance: one split, or several joined by ``+``."""
    both = recipe.joint.all_patients and options.val_split != options.train_split
    return f"{options.train_split}+{options.val_split}" if both else options.train_split


def _extra(entry: str, recipe: Recipe, options: RunOptions, progress: Progress | None) -> Corpus:
    corpus = _sides_of(entry, options)
    return _prefixed(corpus if corpus.cycles else with_weak_cycles(corpus, recipe.joint, progress))


def _sides_of(entry: str, options: RunOptions) -> Corpus:
    """The recordings of another corpus that are trained on or reported on."""
    name, folder = named_folder(entry, options.root)
    corpus = load_corpus(name, folder, partial=options.partial)
    train = next((split for split in (options.train_split, "train") if split in corpus.splits), None)
    if train is not None:
        corpus = training_sides(corpus, train, options.val_split)
        return _renamed(corpus, {train: options.train_split})
    if corpus.splits == ("all",):
        return _on_side(corpus, options.train_split)
    raise CorpusError(f"{name} at {folder} has no split 'train'; it has {', '.join(corpus.splits)}: add a split.csv")


def _unlabelled(entry: str, parts: Sequence[Corpus], options: RunOptions) -> Corpus:
    """The recordings of a corpus that no other part has; patients are those of the part in the same folder."""
    corpus = _sides_of(entry, options)
    used = {recording.path for part in parts for recording in part.recordings}
    prefixes = ["", *(f"{part.name}/" for part in parts[1:])]  # of the patients of each part
    same_folder = (prefix for prefix, part in zip(prefixes, parts, strict=True) if part.root == corpus.root)
    prefix = next(same_folder, f"{corpus.name}/")
    return replace(
        corpus,
        recordings=tuple(
            replace(recording, id=f"{corpus.name}/{recording.id}", patient=f"{prefix}{recording.patient}")
            for recording in corpus.recordings
            if recording.path not in used
        ),
        cycles=(),
    )


def _noise(entry: str, held_out: float, options: RunOptions) -> Corpus:
    """The noise that may be used: without one fold of its sources, the same in every run."""
    name, folder = named_folder(entry, options.root)
    corpus = load_corpus(name, folder, partial=options.partial)
    used = noise_folds(corpus, held_out)
    return _prefixed(_on_side(corpus.where(lambda recording: used[recording.id]), options.train_split))


def noise_folds(corpus: Corpus, held_out: float) -> dict[str, bool]:
    """Recording → whether training may use it; sources stay whole and kinds are held out alike."""
    kinds = [recording.raw_label or "" for recording in corpus.recordings]
    if not held_out:
        return {recording.id: True for recording in corpus.recordings}
    patients = [recording.patient for recording in corpus.recordings]
    fold = grouped_folds(kinds, patients, max(2, round(1.0 / held_out)))
    return {recording.id: bool(number) for recording, number in zip(corpus.recordings, fold, strict=True)}


def _on_side(corpus: Corpus, split: str) -> Corpus:
    return replace(
        corpus,
        recordings=tuple(replace(recording, split=split) for recording in corpus.recordings),
        cycles=tuple(replace(cycle, split=split) for cycle in corpus.cycles),
    )


def _renamed(corpus: Corpus, names: dict[str, str]) -> Corpus:
    return replace(
        corpus,
        recordings=tuple(replace(r, split=names.get(r.split or "", r.split)) for r in corpus.recordings),
        cycles=tuple(replace(c, split=names.get(c.split or "", c.split)) for c in corpus.cycles),
    )


def _prefixed(corpus: Corpus) -> Corpus:
    """Names of recordings and patients with the corpus in front: two corpora may number theirs alike."""
    name = corpus.name
    return replace(
        corpus,
        recordings=tuple(replace(r, id=f"{name}/{r.id}", patient=f"{name}/{r.patient}") for r in corpus.recordings),
        cycles=tuple(
            replace(c, recording_id=f"{name}/{c.recording_id}", patient=f"{name}/{c.patient}") for c in corpus.cycles
        ),
    )
