"""One-second clips of HF_Lung_V1, each starting where an inhalation or exhalation does (Hsu et al., PLoS ONE 2021).

``clips.csv``: file, recording, date_group, phase (I or E), split. There is no normal or abnormal: the clips show
where phases begin. The ends are not annotated, so ``Corpus.phases`` stays empty (``hf_lung_labels`` has them for the
clips whose recording has labels). Recordings of one date are very likely of one person, so the date replaces the
patient.
"""

from __future__ import annotations

from pathlib import Path

from edge_sdk.corpora.corpus_files import audio_by_stem, existing_root, read_csv, without_audio_suffix
from edge_sdk.corpora.table import Corpus, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "hf_lung_clips"
DEVICE = "Littmann 3200"
TABLE = "clips.csv"
PHASE_CODES = ("I", "E")


def load(root: Path) -> Corpus:
    """The clips that ``clips.csv`` lists; ``raw_label`` is the phase.

    Raises
    ------
    CorpusError
        No ``clips.csv``, or columns missing in it.
    """
    existing_root(root, "the HF_Lung clips")
    table = root / TABLE
    if not table.is_file():
        raise CorpusError(f"{root} has no {TABLE} (file, recording, date_group, phase, split)")
    faults: list[Fault] = []
    audio = audio_by_stem([root, *(path for path in sorted(root.iterdir()) if path.is_dir())], faults)
    recordings: list[Recording] = []
    listed: set[str] = set()
    for line, row in read_csv(table, ("file", "date_group", "phase"), faults).rows:
        stem = without_audio_suffix(row["file"]).rsplit("/", 1)[-1]
        if row["phase"] not in PHASE_CODES:
            faults.append(Fault(f"{table} line {line}: phase {row['phase']!r} is neither I nor E", fatal=True))
            continue
        if stem in listed:
            message = f"{table} line {line}: {stem} is listed twice"
            faults.append(Fault(message, stem, fatal=True, excludes=True))
            continue
        listed.add(stem)
        if stem not in audio:
            faults.append(Fault(f"{stem}: listed in {TABLE}, but there is no audio file of that name", stem, True))
        path = audio.get(stem, root / f"{stem}.wav")
        split = row.get("split") or None
        recordings.append(
            Recording(NAME, stem, path, patient=row["date_group"], split=split, device=DEVICE, raw_label=row["phase"])
        )
    faults += [Fault(f"{stem} is not listed in {TABLE}") for stem in sorted(set(audio) - listed)]
    return Corpus(NAME, root, tuple(recordings), faults=tuple(faults))
