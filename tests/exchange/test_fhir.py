"""FHIR Bundles: valid by independent models; rate, codes and times equal the summary; the audio's hash matches."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fhir.resources.bundle import Bundle as BundleR5
from fhir.resources.R4B.bundle import Bundle as BundleR4

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.convert import ConvertOptions, convert
from edge_sdk.exchange.examination import Examination, ExaminedRecording
from edge_sdk.exchange.fhir.bundle import validate
from edge_sdk.exchange.terminology import CODES, NOT_CODED_SITES
from tests.exchange.conftest import STARTED, examined

MODELS: dict[str, Any] = {"fhir-r4": BundleR4, "fhir-r5": BundleR5}
FINDINGS = {"crackle": "48409008", "wheeze": "56018004"}


def written(examination: Examination, to: str, folder: Path, options: ConvertOptions | None = None) -> dict[str, Any]:
    done = convert(examination, to, folder / "visit.json", options)
    content = done.files[-1].read_bytes()
    MODELS[to].model_validate_json(content)  # the oracle: none of our code
    bundle: dict[str, Any] = json.loads(content)
    return bundle


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def codes(element: dict[str, Any]) -> set[str]:
    return {coding["code"] for coding in element.get("coding", [])}


def ranges(observation: dict[str, Any]) -> list[tuple[float, float]]:
    parts = [part["valueRange"] for part in observation.get("component", []) if "valueRange" in part]
    return [(part["low"]["value"], part["high"]["value"]) for part in parts]


def by_recording(bundle: dict[str, Any], count: int) -> Iterator[list[dict[str, Any]]]:
    """Observations from one respiratory rate to the next."""
    found = resources(bundle, "Observation")
    starts = [i for i, o in enumerate(found) if codes(o["code"]) == {"9279-1"}]
    assert len(starts) == count
    for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
        yield found[start:end]


def assert_equals_summary(observations: list[dict[str, Any]], recording: ExaminedRecording) -> None:
    rate, *others = observations
    assert codes(rate["category"][0]) == {"vital-signs"}
    if recording.respiratory_rate_bpm is None:
        assert "valueQuantity" not in rate and rate["dataAbsentReason"]
    else:
        value = rate["valueQuantity"]
        assert (value["value"], value["code"]) == (recording.respiratory_rate_bpm, "/min")
        assert value["system"] == "http://unitsofmeasure.org"
    verdict = next(o for o in others if "component" in o and any("Usable" in str(c["code"]) for c in o["component"]))
    if recording.verdict == "uncertain":
        assert "valueCodeableConcept" not in verdict
        assert verdict["dataAbsentReason"]["text"].startswith("uncertain")
    else:
        expected = {"normal": "48348007", "abnormal": "301273002"}[str(recording.verdict)]
        assert codes(verdict["valueCodeableConcept"]) == {expected}
        assert "dataAbsentReason" not in verdict
    if recording.cycles:
        cycles = next(o for o in others if o["code"].get("text", "").startswith("Respiratory cycles"))
        assert cycles["valueInteger"] == recording.summary["cycles"]
        expected_times = [(c.start_s, c.end_s) for c in recording.cycles for _ in range(1 + (c.label == "both"))]
        assert ranges(cycles) == expected_times
    for kind, code in FINDINGS.items():
        labels = (kind, "both")
        times = [(c.start_s, c.end_s) for c in recording.cycles if c.label in labels]
        times += [(s.start_s, s.end_s) for s in recording.sounds if s.kind == kind]
        found = [o for o in others if codes(o.get("valueCodeableConcept", {})) == {code}]
        assert [ranges(o) for o in found] == ([times] if times else [])
    assert {o["status"] for o in observations} == {"preliminary"}
    assert {code for o in others[:1] for code in codes(o["category"][0])} == {"exam"}


def assert_audio(bundle: dict[str, Any], recordings: tuple[ExaminedRecording, ...], to: str) -> None:
    if to == "fhir-r4":
        media = resources(bundle, "Media")
        contents = [(medium["content"], medium["duration"]) for medium in media]
    else:
        documents = resources(bundle, "DocumentReference")
        contents = [(d["content"][0]["attachment"], d["content"][0]["attachment"]["duration"]) for d in documents]
    assert len(contents) == len(recordings)
    for (content, duration), recording in zip(contents, recordings, strict=True):
        data = base64.b64decode(content["data"])
        assert content["size"] == len(data)
        assert content["hash"] == base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
        assert duration == recording.duration_s
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int32")
        original, own = soundfile.read(str(recording.audio), dtype="int32")
        assert rate == own
        assert np.array_equal(samples, original)


@pytest.mark.parametrize("to", MODELS)
def test_a_bundle_holds_the_examination(examination: Examination, to: str, tmp_path: Path) -> None:
    bundle = written(examination, to, tmp_path)
    recordings = examination.recordings
    for observations, recording in zip(by_recording(bundle, 2), recordings, strict=True):
        assert_equals_summary(observations, recording)
    assert_audio(bundle, recordings, to)
    (report,) = resources(bundle, "DiagnosticReport")
    assert report["status"] == "partial"
    assert len(report["result"]) == len(resources(bundle, "Observation"))
    assert len(report["media"]) == 2
    assert "research use only" in report["conclusion"]
    (provenance,) = resources(bundle, "Provenance")
    (identity,) = examination.bundles
    assert provenance["entity"][0]["what"]["identifier"]["value"] == identity.sha256
    devices = resources(bundle, "Device")
    assert [device.get("serialNumber") for device in devices] == [None, "SN-4711"]
    assert "compact" in json.dumps(devices[0])


def test_sites_are_coded_where_a_guide_has_a_code(examination: Examination, tmp_path: Path) -> None:
    bundle = written(examination, "fhir-r4", tmp_path)
    lateral, anterior = (medium["bodySite"] for medium in resources(bundle, "Media"))
    assert lateral == {"text": "left lateral"}
    assert (codes(anterior), anterior["text"]) == ({"1290342004"}, "right anterior")
    from edge_sdk.corpora.table import SITES

    assert set(SITES) - set(NOT_CODED_SITES) <= set(CODES)


def test_times_stand_where_they_are_known(examination: Examination, tmp_path: Path) -> None:
    bundle = written(examination, "fhir-r5", tmp_path)
    first, second = (observations[0] for observations in by_recording(bundle, 2))
    assert first["effectiveDateTime"] == STARTED.isoformat(timespec="milliseconds")
    assert second["_effectiveDateTime"]["extension"][0]["valueCode"] == "unknown"


def test_every_kind_of_verdict_has_its_place(examination: Examination, tmp_path: Path) -> None:
    recording = examination.recordings[0]
    cases: list[tuple[str | None, str | None, str | None]] = [
        ("normal", None, "normal"),
        ("abnormal", None, "abnormal"),
        ("uncertain", None, "unknown"),
        ("uncertain", "too-little-audio", "unknown"),
        ("uncertain", "poor-quality", "unknown"),
        ("uncertain", "unfamiliar", "unsupported"),
    ]
    for verdict, reason, expected in cases:
        more = {"verdict": verdict, "verdict_reason": reason, "p_abnormal": 0.25, "respiratory_rate_bpm": None}
        changed = replace(recording, summary={**recording.summary, **more}, cycles=(), sounds=())
        bundle = written(Examination((changed,)), "fhir-r4", tmp_path)
        rate, found, *_ = resources(bundle, "Observation")
        assert rate["dataAbsentReason"]["text"] == "no respiratory cycle was found"
        coded = found["valueCodeableConcept"] if verdict != "uncertain" else found["dataAbsentReason"]
        assert codes(coded) == {CODES[expected or ""].code}
        calibrated = [part for part in found["component"] if "probability" in part["code"]["text"]]
        assert [part["valueQuantity"]["value"] for part in calibrated] == ([0.25] if reason is None else [])
    silent = replace(recording, summary={**recording.summary, "verdict": None})  # a bundle without verdicts
    kinds = [codes(o["code"]) for o in resources(written(Examination((silent,)), "fhir-r4", tmp_path), "Observation")]
    assert kinds[0] == {"9279-1"}


def test_a_transaction_reviewed_for_a_known_patient(examination: Examination, tmp_path: Path) -> None:
    options = ConvertOptions(bundle_type="transaction", reviewed=True, patient="Patient/17", content="none")
    bundle = written(examination, "fhir-r4", tmp_path, options)
    assert resources(bundle, "Patient") == resources(bundle, "Media") == []
    assert all(entry["request"]["url"] == entry["resource"]["resourceType"] for entry in bundle["entry"])
    observations = resources(bundle, "Observation")
    assert {o["status"] for o in observations} == {resources(bundle, "DiagnosticReport")[0]["status"]} == {"final"}
    assert {o["subject"]["reference"] for o in observations} == {"Patient/17"}


def test_audio_beside_the_bundle_or_at_an_address(examination: Examination, tmp_path: Path) -> None:
    for content, prefix in (("file", ""), ("https://store.example/a/", "https://store.example/a/")):
        bundle = written(examination, "fhir-r4", tmp_path, ConvertOptions(content=content))
        for medium in resources(bundle, "Media"):
            attachment = medium["content"]
            assert "data" not in attachment
            file = tmp_path / attachment["url"].removeprefix(prefix)
            digest = hashlib.sha1(file.read_bytes(), usedforsecurity=False).digest()
            assert attachment["hash"] == base64.b64encode(digest).decode()


def test_what_does_not_validate_is_refused(examination: Examination, tmp_path: Path) -> None:
    bundle = written(examination, "fhir-r4", tmp_path)
    bundle["entry"][2]["resource"]["status"] = ["final"]
    with pytest.raises(ExchangeError, match="does not validate"):
        validate(bundle, "r4")
    bundle = written(examination, "fhir-r4", tmp_path)
    bundle["entry"][2]["resource"]["subject"]["reference"] = "urn:uuid:00000000-0000-0000-0000-000000000000"
    with pytest.raises(ExchangeError, match="does not hold"):
        validate(bundle, "r4")
    bare = ExaminedRecording("a.wav", 4000, 1.0)
    with pytest.raises(ExchangeError, match="no bare annotation"):
        convert(Examination((bare,)), "fhir-r4", tmp_path / "bare.json")


@pytest.mark.long
@pytest.mark.parametrize("to", MODELS)
def test_twenty_recordings_validate_and_equal_their_summaries(data_root: Path, to: str, tmp_path: Path) -> None:
    files = sorted((data_root / "icbhi").glob("*.flac"))[::12][:10] + sorted((data_root / "kauh").rglob("*.flac"))[::17]
    paths = files[:20]
    assert len(paths) == 20
    examination = examined(paths, ["left posterior"] * 20)
    bundle = written(examination, to, tmp_path)
    for observations, recording in zip(by_recording(bundle, 20), examination.recordings, strict=True):
        assert_equals_summary(observations, recording)
    assert_audio(bundle, examination.recordings, to)
