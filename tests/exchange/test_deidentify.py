"""De-identification: names never leave, dates shift together, serials are hashed; talking is refused or muted."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import soundfile

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.formats import FORMATS
from edge_sdk.exchange.audio import ExactAudio
from edge_sdk.exchange.convert import ConvertOptions, convert
from edge_sdk.exchange.deidentify import KEEPABLE, Deidentification, deidentified, read_key, rules_of
from edge_sdk.exchange.examination import Examination, ExaminedRecording
from edge_sdk.exchange.speech import gate, talking
from tests.exchange.conftest import STARTED

KEY = b"a key of the clinic"
SECRETS = ("Mustermann", "SN-4711", "2024-02-29", "20240229", "91.5", "21.5")


def rules(**more: Any) -> Deidentification:
    return Deidentification(**{"key": KEY, **more})


def content_of(files: tuple[Path, ...]) -> str:
    """Everything in the files and their names that can be read, attached audio decoded."""
    texts = []
    for file in files:
        content = file.read_bytes()
        texts.append(file.name)
        if file.suffix == ".dcm":
            texts.append(str(pydicom.dcmread(io.BytesIO(content))))
            continue
        texts.append(content.decode("utf-8"))
        if "fhir" in file.name:
            for entry in json.loads(content)["entry"]:
                attached = entry["resource"].get("content", {})
                parts = attached if isinstance(attached, list) else [{"attachment": attached}]
                texts += [
                    base64.b64decode(p["attachment"]["data"]).decode("latin-1") for p in parts if "data" in str(p)
                ]
    return "\n".join(texts)


@pytest.fixture
def tagged(examination: Examination, tmp_path: Path) -> Examination:
    """A recording whose file names the patient in its path and its tags."""
    path = tmp_path / "Mustermann-Erika.wav"
    source = examination.recordings[0]
    samples, rate = soundfile.read(str(source.audio), dtype="int16")
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        file.title, file.date = "Erika Mustermann", "2024-02-29"
        file.write(samples)
    assert b"Mustermann" in path.read_bytes()
    return Examination((replace(source, audio=path, source=str(path)),))


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_lets_a_name_a_date_or_a_serial_number_out(form: str, tagged: Examination, tmp_path: Path) -> None:
    done = convert(tagged, form, tmp_path / "out", ConvertOptions(rules()))
    found = content_of(done.files)
    assert [secret for secret in SECRETS if secret in found] == []
    assert str(tmp_path) not in found
    if form.startswith("fhir") or form == "dicom":
        assert rules().pseudonym("serial_number", "SN-4711") in found


@pytest.mark.parametrize("form", ["fhir-r4", "dicom"])
def test_what_is_to_be_kept_stays(form: str, tagged: Examination, tmp_path: Path) -> None:
    kept = rules(keep=frozenset(KEEPABLE))
    found = content_of(convert(tagged, form, tmp_path / "out", ConvertOptions(kept)).files)
    expected = ["SN-4711", "Mustermann-Erika", "091Y" if form == "dicom" else "91.5"]
    expected += ["20240229"] if form == "dicom" else ["2024-02-29", "21.5"]
    assert [secret for secret in expected if secret not in found] == []
    assert "Erika Mustermann" not in found  # a name that a session keeps has no field to leave by


def test_dates_shift_by_the_same_days_for_the_same_key_and_patient() -> None:
    shifts = {STARTED - (rules(patient=p).date(STARTED) or STARTED) for p in ("", "a", "b")}
    assert len(shifts) == 3
    assert all(shift.days >= 1 and shift.seconds == 0 for shift in shifts)
    assert rules().date(STARTED) == rules().date(STARTED)
    assert rules(key=b"another key").date(STARTED) != rules().date(STARTED)
    assert rules(dates="drop").date(STARTED) is None
    assert rules(keep=frozenset({"dates"}), dates="drop").date(STARTED) == STARTED


def test_dropped_dates_are_masked(examination: Examination, tmp_path: Path) -> None:
    done = convert(examination, "fhir-r4", tmp_path / "a.json", ConvertOptions(rules(dates="drop")))
    text = done.files[0].read_text("utf-8")
    assert 'effectiveDateTime": "' not in text
    assert text.count('"valueCode": "masked"') >= 4
    done = convert(examination, "dicom", tmp_path / "out", ConvertOptions(rules(dates="drop")))
    data = pydicom.dcmread(done.files[0])
    assert (data.StudyDate, data.ContentDate, data.PatientIdentityRemoved) == ("", "19000101", "YES")
    assert data.DeidentificationMethod == "names dropped, dates dropped, serials hashed"


@pytest.mark.parametrize(
    ("age", "expected"), [(0.4, 0), (61.7, 61), (89.9, 89), (90.0, None), (None, None), (float(104), None)]
)
def test_ages_are_whole_years_and_none_above_89(age: float | None, expected: int | None) -> None:
    recording = ExaminedRecording("a.wav", 4000, 1.0, metadata={"age_years": age, "bmi": 30.0, "sex": "male"})
    (left,) = deidentified(Examination((recording,)), rules()).recordings
    assert left.metadata.get("age_years") == expected
    assert left.metadata["sex"] == "male" and "bmi" not in left.metadata


def test_pseudonyms_are_those_of_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Deidentification().pseudonym("serial", "1") != Deidentification().pseudonym("serial", "1")
    assert rules().pseudonym("serial", "1") != rules().pseudonym("source", "1")
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert read_key(path) == KEY
    monkeypatch.delenv("STETHO_DEIDENTIFY_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("STETHO_DEIDENTIFY_KEY", KEY.decode())
    assert read_key(None) == KEY
    path.write_bytes(b"short")
    for faulty, message in ((path, "can be guessed"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ExchangeError, match=message):
            read_key(faulty)
    with pytest.raises(ExchangeError, match="not name"):
        rules_of(["dates,name"], dates="shift", key=None, patient="")


def speech_between(data_root: Path, breath: Path) -> tuple[ExactAudio, tuple[float, float]]:
    """A real recording with a spoken digit in the midst of it, and where."""
    samples, rate = soundfile.read(breath, dtype="float32")
    samples = samples[: 6 * rate]
    spoken, own = soundfile.read(sorted((data_root / "noise" / "speech").glob("*.flac"))[0], dtype="float32")
    step = own // rate
    spoken = spoken[: 2 * own].reshape(-1, step).mean(axis=1) if step > 1 else spoken
    start = 3 * rate
    samples[start : start + spoken.size] += spoken / np.abs(spoken).max() * 0.5
    whole = (np.clip(samples, -0.99, 0.99) * 32767).astype(np.int16)
    return ExactAudio(whole, rate, 16), (start / rate, (start + spoken.size) / rate)


def test_talking_is_found_muted_or_refused(data_root: Path, kauh_file: Path) -> None:
    audio, (start_s, end_s) = speech_between(data_root, kauh_file)
    found = talking(audio)
    assert found
    assert all(start_s - 0.5 <= begin < end <= end_s + 0.5 for begin, end in found)
    assert sum(end - begin for begin, end in found) > 0.3
    with pytest.raises(ExchangeError, match=r"visit: somebody talks for .* s, first at [23]\.\d s"):
        gate(audio, "refuse", "visit")
    muted = gate(audio, "mute", "visit")
    assert talking(replace(muted, muted=())) == []
    first, last = (round(t * audio.sample_rate) for t in (found[0][0], found[-1][1]))
    assert np.array_equal(muted.samples[: first - 1], audio.samples[: first - 1])
    assert np.array_equal(muted.samples[last + 1 :], audio.samples[last + 1 :])
    assert not muted.samples[first + 1 : round(found[0][1] * audio.sample_rate) - 1].any()
    assert gate(audio, "ignore", "visit") is audio


def test_breath_sounds_pass_the_speech_gate(examination: Examination) -> None:
    from edge_sdk.exchange.audio import exact_audio

    for recording in examination.recordings:
        audio = exact_audio(recording)
        short = replace(audio, samples=audio.samples[: 6 * audio.sample_rate])
        assert gate(short, "refuse", recording.name).muted == ()


@pytest.mark.long
def test_recordings_of_four_corpora_pass_and_speech_does_not(data_root: Path) -> None:
    from edge_sdk.exchange.audio import exact_audio

    def talks(path: Path) -> bool:
        return bool(talking(exact_audio(ExaminedRecording(str(path), 0, 0.0, path))))

    breath = sorted((data_root / "icbhi").glob("*.flac"))[::6] + sorted((data_root / "kauh").rglob("*.flac"))[::9]
    breath += sorted((data_root / "hls_cmds").rglob("*.flac"))[::50]
    breath += sorted((data_root / "sprsound").rglob("*.flac"))[::100]
    speech = sorted((data_root / "noise" / "speech").glob("*.flac"))
    share = sum(talks(path) for path in breath) / len(breath)
    found = sum(talks(path) for path in speech) / len(speech)
    print(f"talking found in {share:.1%} of {len(breath)} recordings of breath, {found:.1%} of {len(speech)} of speech")
    assert share <= 0.1
    assert found >= 0.95


def test_muted_stretches_leave_muted(data_root: Path, kauh_file: Path, tmp_path: Path) -> None:
    audio, _ = speech_between(data_root, kauh_file)
    path = tmp_path / "talk.wav"
    soundfile.write(path, audio.samples, audio.sample_rate)
    recording = ExaminedRecording(str(path), audio.sample_rate, len(audio.samples) / audio.sample_rate, path)
    done = convert(Examination((recording,)), "dicom", tmp_path / "a.dcm", ConvertOptions(speech="mute"))
    data = pydicom.dcmread(done.files[0])
    expected = gate(audio, "mute", "x")
    assert np.array_equal(data.waveform_array(0)[:, 0], expected.samples)
    assert data.WaveformSequence[0].WaveformOriginality == "DERIVED"
    texts = [item.UnformattedTextValue for item in data.WaveformAnnotationSequence]
    assert texts == ["muted: talking"] * len(expected.muted)
    assert any("with talking were muted" in note for note in done.notes)
    with pytest.raises(ExchangeError, match="somebody talks"):
        convert(Examination((recording,)), "dicom", tmp_path / "b.dcm", ConvertOptions(speech="refuse"))
    assert not (tmp_path / "b.dcm").exists()
