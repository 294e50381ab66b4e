"""What binds a run to its data: checksums of annotations and audio, kept with its state and beside its results.

A run that was stopped goes on only with the labels and the audio that it began with, and a finished run is not
overwritten by one of other data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edge_sdk.corpora import Corpus
from edge_sdk.digests import sha256_file
from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import (
    CHECKPOINT_FILE,
    CV_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    RunOptions,
    fold_state_file,
    write_json,
)

IDENTITY_FILE = "identity.json"
CV_IDENTITY_FILE = "cv-identity.json"

Identity = Mapping[str, Any]
"""What a run depends on: builtins, by name."""


def digest_of(*values: Any) -> str:
    """SHA-256 over numbers, texts, arrays, and containers and dataclasses of them."""
    digest = hashlib.sha256()
    _feed(digest, values)
    return digest.hexdigest()


def reported_identity(corpus: Corpus, options: RunOptions) -> dict[str, Any]:
    """Checksums of the recordings that a run reports on: no weight depends on them, but every figure does."""
    if options.val_split == options.train_split:
        return {}
    rows = [(r.id, r.patient, r.label, r.abnormal, r.quality_poor) for r in corpus.recordings]
    cycles = [(c.recording_id, c.start_s, c.end_s, c.label) for c in corpus.cycles]
    return {
        "reported labels": digest_of(rows, cycles, corpus.phases, corpus.sounds),
        "reported audio": digest_of([sha256_file(r.path) for r in corpus.recordings]),
    }


def differences(stored: Identity, wanted: Identity) -> str:
    """What differs, in a few words: names, and old and new values where they are short; empty where nothing does."""
    found = []
    for name in wanted:
        old, new = plain(stored.get(name)), plain(wanted[name])
        if old == new:
            continue
        if name not in stored:
            found.append(f"{name} not on record")
        elif isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in (*old, *(k for k in new if k not in old)) if old.get(key) != new.get(key)]
            found += [f"{name}.{key}{_change(old.get(key), new.get(key))}" for key in keys[:3]]
        else:
            found.append(f"{name}{_change(old, new)}")
    return ", ".join(found)


def refuse_other_data(state: Path, identity: Identity) -> None:
    """Make sure that the folder of a training state holds no finished run of something else.

    Raises
    ------
    CheckpointError
        It does; the message has what differs.
    """
    for path, results in _records(state):
        there = [name for name in results if (path.parent / name).is_file()]
        stored = _read(path)
        difference = differences(stored, identity)
        if there and difference:
            raise CheckpointError(
                f"{path.parent} holds a finished run of other data or settings ({difference} differ); "
                f"choose another --out, or delete {', '.join(there)} there to start afresh"
            )


def keep_identity(state: Path, identity: Identity) -> None:
    """Write what the run depends on beside its state and its results to come."""
    for path, _ in _records(state):
        if differences(_read(path), identity):
            write_json(path, plain(identity))


def finished_run(recipe: Recipe, options: RunOptions, identity: Identity) -> dict[str, Any] | None:
    """The metrics of the run in ``options.out`` where it is finished, with exactly this recipe, seed and data."""
    folder = options.out
    files = (CHECKPOINT_FILE, METRICS_FILE, RECIPE_FILE)
    if differences(_read(folder / IDENTITY_FILE), identity) or not all((folder / name).is_file() for name in files):
        return None
    try:
        if Recipe.from_dict(yaml.safe_load((folder / RECIPE_FILE).read_text(encoding="utf-8"))) != recipe:
            return None
        metrics: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecipeError):
        return None  # damaged: train again
    if (metrics.get("seed"), metrics.get("split")) != (options.seed, options.val_split):
        return None
    return {**metrics, "checkpoint": str(folder / CHECKPOINT_FILE)}


def plain(value: Any) -> Any:
    """Tuples become lists, so that values compare equal before and after a file."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def _records(state: Path) -> list[tuple[Path, Sequence[str]]]:
    """Files of identity that go with a state, each with the results that it speaks for."""
    records: list[tuple[Path, Sequence[str]]] = [(state.parent / IDENTITY_FILE, (CHECKPOINT_FILE, METRICS_FILE))]
    whole = state.parent.parent
    if state == fold_state_file(whole, 0):
        records.append((whole / CV_IDENTITY_FILE, (CV_FILE,)))
    return records


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _change(old: Any, new: Any) -> str:
    """`` (3 → 4)`` where both are short."""
    if isinstance(old, list) and isinstance(new, list):
        gone, come = [x for x in old if x not in new], [x for x in new if x not in old]
        old, new = (", ".join(map(str, part[:3])) or "none" for part in (gone, come))
    text = f" ({old} → {new})"
    return text if len(text) < 60 else ""


def _feed(digest: Any, value: Any) -> None:
    """Each value with its kind and length, so that no two structures run together."""
    if hasattr(value, "numpy"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"array {value.dtype} {value.shape};".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Enum):
        _feed(digest, value.name)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(digest, [(field.name, getattr(value, field.name)) for field in fields(value)])
    elif isinstance(value, Mapping):
        _feed(digest, sorted((str(key), item) for key, item in value.items()))
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        items = list(value)
        digest.update(f"list {len(items)};".encode())
        for item in items:
            _feed(digest, item)
    else:
        text = repr(value.item() if hasattr(value, "item") else value).encode()
        digest.update(b"%d:%s;" % (len(text), text))
