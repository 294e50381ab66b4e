"""Features of annotated cycles on disk, the evaluation input of every network of one front end.

Keyed by the front end's digest and by the cycles (file, size, time of change, bounds): an edited recording, another
front end or another selection of cycles is another file. A file that does not match its checksum is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.corpora.audio import batches, cycle_pcm
from edge_sdk.corpora.table import Cycle
from edge_sdk.digests import sha256_file
from edge_sdk.files import own_folder, storing_in, whole_file
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.bank import Progress

_log = logging.getLogger(__name__)
_FORMAT = 1  # part of the key: bump when the meaning of the stored features changes
_BATCH = 64


def cached_features(
    cycles: Sequence[Cycle], spec: FrontEndSpec, *, cache: Path | None = None, progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """Features of cycles as the device computes them: cut as annotated, fitted to the window, analysed.

    Parameters
    ----------
    cycles
        Cycles of recordings that exist; those of one recording are best kept together.
    spec
        Front end.
    cache
        Folder; ``STETHO_CACHE`` or the user's cache folder by default.
    progress
        Called while features are computed, not when they are read.

    Returns
    -------
    ndarray
        ``[n, 1, M, T]`` float32 in the order of ``cycles``; a read-only memory map.

    Raises
    ------
    AudioError
        A recording that cannot be read.
    ValueError
        No cycles.
    """
    if not cycles:
        raise ValueError("no cycles to compute features of")
    folder = cache or own_folder("cache")
    key = feature_key(cycles, spec)
    store, note = folder / f"features-{key}.npy", folder / f"features-{key}.json"
    found = _read(store, note)
    if found is not None:
        return found
    with storing_in("cache", folder):
        with whole_file(store) as draft:  # two that write the same features at once both succeed
            _compute(cycles, spec, draft, progress)
            digest = sha256_file(draft)
        with whole_file(note) as draft:
            draft.write_text(json.dumps({"sha256": digest, "cycles": len(cycles)}), encoding="utf-8")
    _log.info("cached the features of %d cycles in %s", len(cycles), store)
    return _map(store)


def feature_key(cycles: Sequence[Cycle], spec: FrontEndSpec) -> str:
    """Digest of everything that the features depend on, 20 hexadecimal digits."""
    digest = hashlib.sha256(f"{_FORMAT} {spec.digest}\n".encode())
    identity: dict[Path, bytes] = {}
    for cycle in cycles:
        if cycle.path not in identity:
            stat = cycle.path.stat() if cycle.path.is_file() else None
            changed = "" if stat is None else f"{stat.st_size} {stat.st_mtime_ns}"
            identity[cycle.path] = os.fsencode(cycle.path.resolve()) + f" {changed}".encode()
        digest.update(identity[cycle.path] + f" {cycle.start_s!r} {cycle.end_s!r}\n".encode())
    return digest.hexdigest()[:20]


def _compute(cycles: Sequence[Cycle], spec: FrontEndSpec, path: Path, progress: Progress | None) -> None:
    """Straight into the file: the features of a large front end do not fit into memory."""
    front_end = FoldedFrontEnd(spec).eval()
    store: npt.NDArray[np.float32] | None = None
    done = 0
    for group, windows in batches(cycle_pcm(cycles, spec), _BATCH):
        with torch.inference_mode():
            features = front_end(torch.from_numpy(windows)).numpy()  # [B, 1, M, T]
        if store is None:
            shape = (len(cycles), *features.shape[1:])
            store = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        store[done : done + len(group)] = features
        done += len(group)
        if progress is not None:
            progress("computing features", done, len(cycles))
    if isinstance(store, np.memmap):
        store.flush()


def _read(store: Path, note: Path) -> npt.NDArray[np.float32] | None:
    try:
        stated = json.loads(note.read_text(encoding="utf-8"))["sha256"]
        if sha256_file(store) == stated:
            return _map(store)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.debug("%s: %s", store, error)
    _log.warning("%s is damaged; its features are computed again", store)
    return None


def _map(store: Path) -> npt.NDArray[np.float32]:
    mapped: npt.NDArray[np.float32] = np.load(store, mmap_mode="r", allow_pickle=False)
    return mapped
