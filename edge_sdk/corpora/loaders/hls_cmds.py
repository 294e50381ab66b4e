"""HLS-CMDS: the lung sounds of a clinical manikin, one type a file (Torabi et al., IEEE Data Descriptions 2025).

The loader reads ``LS/`` and ``LS.csv``; ``Mix/L*`` hold copies of the same recordings. The manikin plays one programme
per sex and sound type at several sites, so the programme, not the file, replaces the patient. File name:
sex, type, site (``M_FC_LUA``); the IDs in ``LS.csv`` abbreviate crackles differently (``M_C_LUA``).
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_sdk.corpora.corpus_files import audio_by_stem, csv_rows, existing_root, parse_sex
from edge_sdk.corpora.table import Corpus, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "hls_cmds"

LABELS: dict[str, str | None] = {
    "Normal": "normal",
    "Wheezing": "wheeze",
    "Rhonchi": "wheeze",
    "Fine Crackles": "crackle",
    "Coarse Crackles": "crackle",
    "Pleural Rub": None,  # abnormal, but none of the four classes
}
_TYPES = {
    "N": "Normal",
    "W": "Wheezing",
    "R": "Rhonchi",
    "FC": "Fine Crackles",
    "C": "Fine Crackles",
    "CC": "Coarse Crackles",
    "G": "Coarse Crackles",
    "PR": "Pleural Rub",
}
_FILE_NAME = re.compile(r"(?P<sex>[FM])_(?P<type>[A-Z]+)_(?P<site>[LR][UML]A)")


def load(root: Path) -> Corpus:
    """Every lung recording under ``root`` or ``root/LS``; ``LS.csv`` is compared where it exists.

    Raises
    ------
    CorpusError
        No lung recordings.
    """
    existing_root(root, "HLS-CMDS")
    folder = root / "LS" if (root / "LS").is_dir() else root
    audio = audio_by_stem([folder])
    if not audio:
        raise CorpusError(f"{root} holds no HLS-CMDS lung sounds; expected LS/F_N_LUA.wav and so on")
    faults: list[Fault] = []
    recordings = []
    for stem, path in sorted(audio.items()):
        match = _FILE_NAME.fullmatch(stem)
        if match is None or match["type"] not in _TYPES:
            faults.append(Fault(f"{stem}: file name is not <F|M>_<type>_<site>; left out of scores", stem))
            recordings.append(Recording(NAME, stem, path, patient=stem))
        else:
            recordings.append(_recording(stem, path, match["sex"], _TYPES[match["type"]], match["site"]))
    tables = [path for path in (root / "LS.csv", folder / "LS.csv", root.parent / "LS.csv") if path.is_file()]
    if tables:
        faults += _compare(tables[0], recordings)
    return Corpus(NAME, root, tuple(recordings), faults=tuple(faults))


def _recording(stem: str, path: Path, sex: str, sound_type: str, site: str) -> Recording:
    return Recording(
        NAME,
        stem,
        path,
        patient=f"{sex}_{sound_type.replace(' ', '_').lower()}",
        site=f"{'left' if site[0] == 'L' else 'right'} anterior",
        sex=parse_sex(sex),
        label=LABELS[sound_type],
        raw_label=sound_type,
        abnormal=sound_type != "Normal",
    )


def _compare(table: Path, recordings: list[Recording]) -> list[Fault]:
    """Rows of ``LS.csv`` and files pair up by sex, type and site."""
    listed = {
        (row["gender"], row["lung sound type"], row["location"])
        for _, row in csv_rows(table, ("gender", "lung sound type", "location"))
    }
    there = {(r.id[0], r.raw_label or "", r.id.rsplit("_", 1)[-1]): r.id for r in recordings if r.raw_label}
    faults = [
        Fault(f"{table.name} lists {' '.join(key)}, but there is no such file") for key in sorted(listed - set(there))
    ]
    return faults + [
        Fault(f"{there[key]} is not listed in {table.name}", there[key]) for key in sorted(set(there) - listed)
    ]
