"""ESC-50: 2000 environmental sounds of 5 s in 50 categories and five folds (https://doi.org/10.1145/2733373.2806390).

``meta/esc50.csv`` (filename, fold, target, category, esc10, src_file, take) and ``audio/*.wav``. It has no respiratory
cycles and none of the four classes; it serves to check pre-training. ``raw_label`` is the category, which the ``raw``
scheme of :mod:`edge_sdk.corpora.labels` makes the label. Clips cut from one source are never in two folds; the source
is the patient.
"""

from __future__ import annotations

from pathlib import Path

from edge_sdk.corpora.corpus_files import audio_by_stem, existing_root, read_csv, without_audio_suffix
from edge_sdk.corpora.split_rules import leave_one_fold_out
from edge_sdk.corpora.table import Corpus, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "esc50"
TABLE = "meta/esc50.csv"
FOLDS = ("1", "2", "3", "4", "5")


def load(root: Path) -> Corpus:
    """The clips that ``meta/esc50.csv`` lists; splits ``fold1`` … ``fold5`` and ``cv:fold1:train`` and so on.

    Raises
    ------
    CorpusError
        No table, no rows in it, or columns missing.
    """
    existing_root(root, "ESC-50")
    table = root / TABLE
    if not table.is_file():
        raise CorpusError(f"{root} has no {TABLE}; give the folder that holds meta/ and audio/ of ESC-50")
    audio = audio_by_stem([root / "audio"] if (root / "audio").is_dir() else [])
    recordings: list[Recording] = []
    faults: list[Fault] = []
    for line, row in read_csv(table, ("filename", "fold", "category"), faults).rows:
        stem = without_audio_suffix(row["filename"])
        if row["fold"] not in FOLDS or not row["category"]:
            faults.append(Fault(f"{table} line {line}: fold {row['fold']!r}, category {row['category']!r}", fatal=True))
            continue
        if stem not in audio:
            faults.append(Fault(f"{stem}: listed in {TABLE}, but there is no audio file of that name", stem, True))
        path = audio.get(stem, root / "audio" / f"{stem}.wav")
        source = row.get("src_file") or stem
        recordings.append(
            Recording(NAME, stem, path, patient=source, split=f"fold{row['fold']}", raw_label=row["category"])
        )
    if not recordings:
        first = f" that can be used ({faults[0].message})" if faults else ""
        raise CorpusError(f"{table} has no rows{first}; fetch the file again")
    listed = {recording.id for recording in recordings}
    faults += [Fault(f"{stem} is not listed in {TABLE}") for stem in sorted(set(audio) - listed)]
    rules = tuple(leave_one_fold_out(f"fold{fold}") for fold in FOLDS)
    return Corpus(NAME, root, tuple(recordings), faults=tuple(faults), split_rules=rules)
