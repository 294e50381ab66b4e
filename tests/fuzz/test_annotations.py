"""Damaged annotations of every corpus are loaded with faults, or refused with one of our errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from edge_sdk.corpora import load_corpus
from edge_sdk.corpora.registry import REGISTRY
from tests.fuzz.mutations import DURATIONS, damaged, edits, fuzz, read_or_refuse

_TEXTS: dict[str, dict[str, str]] = {
    "csv": {
        "labels.csv": "file,start_s,end_s,label,patient,site,age,sex\na.wav,0.1,0.9,normal,p1,trachea,60,M\n"
        "a.wav,1.0,1.9,wheeze,p1,trachea,60,M\nb.wav,0,1.5,both,p2,,,F\n",
        "split.csv": "file,patient,split\na.wav,p1,train\nb.wav,p2,val\n",
    },
    "icbhi": {
        "101_1b1_Al_sc_Meditron.txt": "0.1\t0.9\t0\t1\n0.9\t1.8\t1\t0\n",
        "102_1b1_Ar_sc_Litt3200.txt": "0\t1.5\t0\t0\n",
        "ICBHI_challenge_train_test.txt": "101_1b1_Al_sc_Meditron\ttrain\n102_1b1_Ar_sc_Litt3200\ttest\n",
        "demographic_info.txt": "101 3 F NA 19 99\n102 60 M 27.1 NA NA\n",
        "patient_diagnosis.csv": "101,URTI\n102,COPD\n",
    },
    "sprsound": {
        "train_json/1_3.0_0_p1_1.json": json.dumps(
            {
                "record_annotation": "DAS",
                "event_annotation": [
                    {"start": "0", "end": "900", "type": "Normal"},
                    {"start": 950, "end": 1700, "type": "Fine Crackle"},
                ],
            }
        ),
    },
    "kauh": {
        "recordings.csv": "file,filter,patient,diagnosis,sound_type,location,age,sex\n"
        "BP1_N.wav,B,1,N,N,P R U,81,F\nDP2_asthma.wav,D,2,Asthma,E W,P L L,30,M\n"
    },
    "hls_cmds": {"LS.csv": "Gender,Lung Sound Type,Location,Lung Sound ID\nF,Normal,LUA,F_N_LUA\n"},
    "hf_lung_clips": {
        "clips.csv": "file,recording,date_group,phase,split\nsteth_1_000.wav,steth_1,d1,I,train\n",
    },
    "hf_lung_labels": {
        "clips.csv": "file,recording,date_group,phase,split\nsteth_1_000.wav,steth_1,d1,I,train\n",
        "labels.csv": "recording,line,tag,start_s,end_s\nsteth_1,0,I,0.2,1.1\nsteth_1,1,E,1.1,2.0\n"
        "steth_1,2,D,0.3,0.8\n",
    },
    "hf_lung_v1": {
        "train/steth_20180814_09_37_11_label.txt": "I 00:00:00.100 00:00:00.800\nE 00:00:00.800 00:00:01.500\n"
        "D 00:00:00.200 00:00:00.600\nWheeze 0:00:01.0 0:00:01.4\n",
    },
    "esc50": {
        "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,True,1,A\n",
    },
    "noise": {"clips.csv": "file,kind,source,seconds\nrain/1-17367-A.wav,rain,ESC-10,2.0\n"},
}
_AUDIO = {
    "csv": ("a.wav", "b.wav"),
    "icbhi": ("101_1b1_Al_sc_Meditron.wav", "102_1b1_Ar_sc_Litt3200.wav"),
    "sprsound": ("train_wav/1_3.0_0_p1_1.wav",),
    "kauh": ("BP1_N.wav", "DP2_asthma.wav"),
    "hls_cmds": ("LS/F_N_LUA.wav",),
    "hf_lung_clips": ("steth_1_000.wav",),
    "hf_lung_labels": ("steth_1_000.wav",),
    "hf_lung_v1": ("train/steth_20180814_09_37_11.wav",),
    "esc50": ("audio/1-1-A-0.wav",),
    "noise": ("rain/1-17367-A.wav",),
}


def write_corpus(root: Path, name: str) -> None:
    """Two seconds of noise for every recording, and the annotations."""
    samples = np.random.default_rng(1).normal(0, 0.1, 16000)
    for text, content in _TEXTS[name].items():
        (root / text).parent.mkdir(parents=True, exist_ok=True)
        (root / text).write_text(content, "utf-8")
    for audio in _AUDIO[name]:
        (root / audio).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / audio, samples, 8000)


def test_every_corpus_has_seeds() -> None:
    assert set(_TEXTS) == set(_AUDIO) == set(REGISTRY)


@pytest.mark.parametrize("name", sorted(_TEXTS))
def test_the_seeds_are_valid(tmp_path: Path, name: str) -> None:
    """Damage of files that are refused in any case would test nothing."""
    write_corpus(tmp_path, name)
    corpus = load_corpus(name, tmp_path, partial=True)
    assert len(corpus.recordings) == len(_AUDIO[name])
    assert not [fault for fault in corpus.faults if fault.fatal]


@pytest.mark.parametrize("duration_s", DURATIONS)
def test_damaged_annotations_are_loaded_or_refused(tmp_path: Path, duration_s: float) -> None:
    for name in _TEXTS:
        write_corpus(tmp_path / name, name)
    files = [(name, text) for name in sorted(_TEXTS) for text in sorted(_TEXTS[name])]

    def check(which: tuple[str, str], partial: bool, changes: Any) -> None:
        name, text = which
        path = tmp_path / name / text
        path.write_bytes(damaged(_TEXTS[name][text].encode(), changes))
        try:
            read_or_refuse(lambda: load_corpus(name, tmp_path / name, partial=partial))
        finally:
            path.write_text(_TEXTS[name][text], "utf-8")

    fuzz(check, st.sampled_from(files), st.booleans(), edits, duration_s=duration_s, examples=100)
    shutil.rmtree(tmp_path)
