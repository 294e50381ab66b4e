"""DICOM: samples bit-equal after a round trip through pydicom, annotations at their samples, dciodvfy content."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import soundfile
from pydicom.uid import BasicVoiceAudioWaveformStorage, GeneralAudioWaveformStorage

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.convert import ConvertOptions, convert
from edge_sdk.exchange.dicom import make_uid
from edge_sdk.exchange.examination import Examination, ExaminedRecording
from edge_sdk.exchange.spans import CycleSpan, GapSpan, SoundSpan

NOT_IN_ITS_TABLES = "Error - Information Object Not found"
"""dciodvfy of Debian 12 has no table of General Audio; that of Basic Voice Audio has the same modules."""


def written(recording: ExaminedRecording, folder: Path, options: ConvertOptions | None = None) -> pydicom.Dataset:
    done = convert(Examination((recording,)), "dicom", folder / "a.dcm", options)
    return pydicom.dcmread(done.files[0])


def errors_of_dciodvfy(data: pydicom.Dataset, folder: Path) -> list[str]:
    path = folder / "check.dcm"
    data.save_as(path, enforce_file_format=True)
    if shutil.which("dciodvfy") is None:
        pytest.fail("no dciodvfy: install the Debian package dicom3tools (.ci/system-packages does)")
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert found.stderr.strip(), "dciodvfy reported nothing"
    return [line for line in found.stderr.splitlines() if line.startswith("Error")]


def wav(path: Path, subtype: str) -> ExaminedRecording:
    rng = np.random.default_rng(7)
    samples = rng.integers(-(1 << 31), (1 << 31) - 1, 4001, dtype=np.int64).astype(np.int32)
    if subtype == "FLOAT":
        soundfile.write(path, rng.uniform(-0.9, 0.9, 4001).astype(np.float32), 11025, subtype=subtype)
    else:
        soundfile.write(path, samples, 11025, subtype=subtype)
    cycle = CycleSpan(0.1, 0.2, "crackle", {"crackle": 0.75, "normal": 0.25})
    return ExaminedRecording("a.wav", 11025, 4001 / 11025, path, cycles=(cycle,))


@pytest.mark.parametrize(
    ("subtype", "dtype", "interpretation"),
    [("PCM_U8", "int16", "SS"), ("PCM_16", "int16", "SS"), ("PCM_24", "int32", "SL"), ("PCM_32", "int32", "SL")],
)
def test_samples_are_bit_equal(subtype: str, dtype: str, interpretation: str, tmp_path: Path) -> None:
    recording = wav(tmp_path / "a.wav", subtype)
    data = written(recording, tmp_path)
    (group,) = data.WaveformSequence
    assert (group.WaveformSampleInterpretation, group.WaveformOriginality) == (interpretation, "ORIGINAL")
    original, rate = soundfile.read(tmp_path / "a.wav", dtype=dtype)
    samples = np.frombuffer(group.WaveformData, dtype)[: group.NumberOfWaveformSamples]
    assert np.array_equal(samples, original)
    assert np.array_equal(data.waveform_array(0)[:, 0], original)
    assert float(group.SamplingFrequency) == rate


def test_floats_are_rounded_and_it_is_noted(tmp_path: Path) -> None:
    recording = wav(tmp_path / "a.wav", "FLOAT")
    done = convert(Examination((recording,)), "dicom", tmp_path / "a.dcm")
    data = pydicom.dcmread(done.files[0])
    original, _ = soundfile.read(tmp_path / "a.wav", dtype="float64")
    exact = float(np.abs(data.waveform_array(0)[:, 0] / 2.0**31 - original).max())
    assert exact <= 2.0**-32
    assert (data.WaveformSequence[0].WaveformOriginality == "DERIVED") == (exact > 0)
    assert any("rounded" in note for note in done.notes) == (exact > 0)


def test_the_mean_of_channels_is_derived(tmp_path: Path) -> None:
    samples = np.random.default_rng(3).integers(-30_000, 30_000, (801, 2)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 4000)
    recording = ExaminedRecording("a.wav", 4000, 801 / 4000, tmp_path / "a.wav", channel="mix")
    data = written(recording, tmp_path)
    assert np.array_equal(data.waveform_array(0)[:, 0], samples.astype(np.int64).sum(axis=1) * 2**15)
    assert data.WaveformSequence[0].WaveformOriginality == "DERIVED"
    second = written(replace(recording, channel=1), tmp_path)
    assert np.array_equal(second.waveform_array(0)[:, 0], samples[:, 1])
    assert second.WaveformSequence[0].WaveformOriginality == "ORIGINAL"


def test_real_recordings_are_bit_equal_and_annotated(examination: Examination, tmp_path: Path) -> None:
    done = convert(examination, "dicom", tmp_path / "visit")
    studies = set()
    for path, recording in zip(done.files, examination.recordings, strict=True):
        data = pydicom.dcmread(path)
        assert data.SOPClassUID == GeneralAudioWaveformStorage
        original, rate = soundfile.read(str(recording.audio), dtype="int32")
        shift = 16 if data.WaveformSequence[0].WaveformBitsAllocated == 16 else 0
        assert np.array_equal(data.waveform_array(0)[:, 0], original >> shift)
        studies.add(data.StudyInstanceUID)
        texts = [a for a in data.WaveformAnnotationSequence if "UnformattedTextValue" in a]
        cycles = [a for a in texts if a.UnformattedTextValue.startswith("cycle")]
        assert [tuple(a.ReferencedSamplePositions) for a in cycles] == [
            (round(c.start_s * rate) + 1, min(round(c.end_s * rate), len(original))) for c in recording.cycles
        ]
        labels = [text.UnformattedTextValue.partition(": ")[2].split(",")[0] for text in cycles]
        assert labels == [cycle.label or cycle.quality for cycle in recording.cycles]
        assert errors_of_dciodvfy(data, tmp_path) == [NOT_IN_ITS_TABLES]
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = BasicVoiceAudioWaveformStorage
        wide = [e for e in errors_of_dciodvfy(data, tmp_path) if "<0x20>" not in e and "<SL>" not in e]
        assert wide == []  # integers of 32 bits are younger than its tables
    assert len(studies) == 1


def test_codes_stand_beside_the_text_of_a_span(tmp_path: Path) -> None:
    recording = wav(tmp_path / "a.wav", "PCM_16")
    annotated = replace(
        recording,
        cycles=(CycleSpan(0.0, 0.1, "both"), CycleSpan(0.1, 0.2, None, quality="noisy")),
        sounds=(SoundSpan(0.15, 0.15, "wheeze", 0.5),),
        gaps=(GapSpan(0.2, 0.3, 1102),),
    )
    data = written(annotated, tmp_path)
    groups: dict[int, list[str]] = {}
    for item in data.WaveformAnnotationSequence:
        text = item.get("UnformattedTextValue") or item.ConceptCodeSequence[0].CodeValue
        groups.setdefault(item.AnnotationGroupNumber, []).append(text)
    assert list(groups.values()) == [
        ["cycle: both", "48409008", "56018004"],
        ["cycle without a label: noisy"],
        ["sound: wheeze, confidence 0.5000", "56018004"],
        ["gap: 1102 samples lost"],
    ]
    point = next(i for i in data.WaveformAnnotationSequence if "sound" in (i.get("UnformattedTextValue") or ""))
    assert (point.TemporalRangeType, point.ReferencedSamplePositions) == ("POINT", round(0.15 * 11025) + 1)


def test_uids_have_the_configured_root(tmp_path: Path) -> None:
    recording = wav(tmp_path / "a.wav", "PCM_16")
    data = written(recording, tmp_path, ConvertOptions(uid_root="1.2.826.0.1.3680043"))
    for uid in (data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID):
        assert uid.startswith("1.2.826.0.1.3680043.") and uid.is_valid
    assert len({data.SOPInstanceUID, data.StudyInstanceUID, data.SeriesInstanceUID}) == 3
    assert written(recording, tmp_path).SOPInstanceUID == written(recording, tmp_path).SOPInstanceUID
    assert all(pydicom.uid.UID(make_uid(str(seed))).is_valid for seed in range(300))
    for root in ("1.2.x", "1.02", "", "2.25.", "1.2.826.0.1.3680043.10.543.1"):
        with pytest.raises(ExchangeError, match="no root of UIDs"):
            ConvertOptions(uid_root=root)


def test_several_recordings_need_a_folder(examination: Examination, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="name a folder"):
        convert(examination, "dicom", tmp_path / "visit.dcm")
