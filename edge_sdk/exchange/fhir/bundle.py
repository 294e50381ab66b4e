"""Assembles the Bundle of an examination, and has the models of ``fhir.resources`` validate it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Literal

from edge_sdk._version import __version__
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import BundleIdentity, Examination, ExaminedRecording
from edge_sdk.exchange.fhir.elements import (
    Json,
    Release,
    body_site,
    concept,
    entry_uuid,
    time_field,
    without_empty,
)
from edge_sdk.exchange.fhir.observations import Context, observations
from edge_sdk.extras import require_extra
from edge_sdk.notices import RESEARCH_USE

_SITE = "https://stethoscope-edge-sdk.github.io/stethoscope-edge-sdk"
_AUDIO_CODE = "Recording of breath sounds"


@dataclass(frozen=True, slots=True)
class AttachedAudio:
    """The audio of a recording: its file, and where it is if not in the Bundle."""

    content: bytes
    content_type: str
    url: str | None = None  # None: the content itself is in the Bundle


@dataclass(frozen=True, slots=True)
class FhirOptions:
    """Choices of one Bundle."""

    release: Release
    seed: str  # the same seed gives the same identifiers
    bundle_type: Literal["collection", "transaction"] = "collection"
    patient: str | None = None  # reference of the patient, such as Patient/123; None: one without a name is made
    reviewed: bool = False  # a person confirmed the results: they are final
    dates_masked: bool = False  # times were dropped on purpose
    recorded: datetime | None = None  # of the Provenance; None: not stated


def fhir_bundle(
    examination: Examination, audio: Sequence[AttachedAudio | None], options: FhirOptions
) -> dict[str, Any]:
    """Make the Bundle: Patient, Devices, Observations, the audio, DiagnosticReport and Provenance.

    Parameters
    ----------
    examination
        What was found; it is written as it is, see :mod:`edge_sdk.exchange.deidentify`.
    audio
        Of each recording; None leaves it out.
    options
        Release and choices.

    Raises
    ------
    ExchangeError
        A recording has no results of screening, or a resource does not validate.
    MissingDependencyError
        ``fhir.resources`` is not installed.
    """
    require_extra("fhir", "FHIR", "fhir")
    for recording in examination.recordings:
        if "respiratory_rate_bpm" not in recording.summary:
            raise ExchangeError(f"{recording.source} has no results of 'stetho screen': FHIR takes no bare annotation")
    made = _Assembly(options)
    for number, (recording, attached) in enumerate(zip(examination.recordings, audio, strict=True), 1):
        made.recording(recording, attached, number)
    made.report(examination)
    made.provenance(examination)
    bundle = {"resourceType": "Bundle", "type": options.bundle_type, "entry": made.entries}
    validate(bundle, options.release)
    return bundle


def validate(bundle: Mapping[str, Any], release: Release) -> None:
    """Check a Bundle against the models of the release (R4 by R4B, equal for these resources), and its references.

    Raises
    ------
    ExchangeError
        It does not validate; the message names the first problem.
    """
    from pydantic import ValidationError

    if release == "r4":
        from fhir.resources.R4B.bundle import Bundle as Model
    else:
        from fhir.resources.bundle import Bundle as Model
    try:
        Model.model_validate_json(json.dumps(bundle))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ExchangeError(f"the FHIR Bundle does not validate: {where}: {first['msg']}; report this fault") from None
    known = {entry["fullUrl"] for entry in bundle["entry"]}
    dangling = {ref for ref in _references(bundle) if ref.startswith("urn:uuid:")} - known
    if dangling:
        raise ExchangeError(f"the FHIR Bundle refers to {sorted(dangling)[0]}, which it does not hold")


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    if not isinstance(value, Mapping):
        return []
    own = [value["reference"]] if isinstance(value.get("reference"), str) else []
    return own + [found for item in value.values() for found in _references(item)]


class _Assembly:
    """Entries of the Bundle as they come together."""

    def __init__(self, options: FhirOptions) -> None:
        self.entries: list[Json] = []
        self._options = options
        self._absent = "masked" if options.dates_masked else "unknown"
        self._results: list[Json] = []
        self._media: list[Json] = []
        self._devices: dict[str, Json] = {}
        self._subject: Json | None = None

    def recording(self, recording: ExaminedRecording, attached: AttachedAudio | None, number: int) -> None:
        subject = self._patient(recording)
        software = self._software(recording)
        status = "final" if self._options.reviewed else "preliminary"
        context = Context(subject, software, status, self._absent)
        for role, observation in observations(recording, context):
            self._results.append(self._add(f"{number}/{role}", observation))
        if attached is not None:
            made = self._audio(recording, attached, subject, number)
            self._media.append(self._add(f"{number}/audio", made))

    def report(self, examination: Examination) -> None:
        recordings = examination.recordings
        started = min((r.started for r in recordings if r.started is not None), default=None)
        verdicts = {recording.verdict for recording in recordings}
        code = "abnormal" if "abnormal" in verdicts else "normal" if verdicts == {"normal"} else None
        lines = [_conclusion(recording) for recording in recordings]
        text = "; ".join([*lines, RESEARCH_USE])
        rows = "".join(f"<li>{escape(line)}</li>" for line in lines)
        div = f'<div xmlns="http://www.w3.org/1999/xhtml"><ul>{rows}</ul><p>{escape(RESEARCH_USE)}</p></div>'
        report = {
            "resourceType": "DiagnosticReport",
            "text": {"status": "generated", "div": div},
            "status": "final" if self._options.reviewed else "partial",  # results that nobody has verified
            "category": [concept("report")],
            "code": concept("lung-findings"),
            "subject": self._patient(recordings[0]),
            **time_field("effectiveDateTime", started, self._absent),
            "result": list(self._results),
            "media": [{"link": reference} for reference in self._media],
            "conclusion": text,
            "conclusionCode": [] if code is None else [concept(code)],
        }
        self._report = self._add("report", without_empty(report))

    def provenance(self, examination: Examination) -> None:
        agents = [
            {"type": concept("assembler"), "who": reference}
            for key, reference in self._devices.items()
            if key.startswith("software")
        ]
        entities = [{"role": "source", "what": _bundle_reference(bundle)} for bundle in examination.bundles]
        made = {
            "resourceType": "Provenance",
            "target": [self._report, *self._results],
            **time_field("recorded", self._options.recorded, self._absent),
            "agent": agents,
            "entity": entities,
        }
        self._add("provenance", without_empty(made))

    def _add(self, role: str, resource: Json) -> Json:
        """Append a resource, and give the reference to it."""
        url = f"urn:uuid:{entry_uuid(f'{self._options.seed}/{role}')}"
        entry: Json = {"fullUrl": url, "resource": resource}
        if self._options.bundle_type == "transaction":
            entry["request"] = {"method": "POST", "url": resource["resourceType"]}
        self.entries.append(entry)
        return {"reference": url}

    def _patient(self, recording: ExaminedRecording) -> Json:
        if self._options.patient is not None:
            return {"reference": self._options.patient}
        if self._subject is None:
            sex = str(recording.metadata.get("sex") or "unknown").lower()
            gender = sex if sex in ("male", "female") else "unknown"
            self._subject = self._add("patient", {"resourceType": "Patient", "gender": gender})
        return self._subject

    def _software(self, recording: ExaminedRecording) -> Json:
        """The Device that computed: this SDK with the bundle."""
        bundle = recording.bundle
        versions: list[Json] = [{"value": recording.sdk_version or __version__}]
        if bundle is not None:
            versions.append({"type": concept(text="bundle"), "value": f"{bundle.name} {bundle.version}"})
        device = {
            "manufacturer": "stethoscope-edge-sdk",
            **self._named("Stethoscope edge SDK"),
            "type": self._type("Software for the classification of breath sounds"),
            "version": versions,
        }
        return self._device(f"software/{versions}", device)

    def _stethoscope(self, recording: ExaminedRecording) -> Json | None:
        model = recording.device.get("model") or recording.metadata.get("device")
        serial = recording.device.get("serial_number")
        if model is None and serial is None:
            return None
        device = {
            "serialNumber": serial,
            "modelNumber": model,
            **self._named(str(model or "Stethoscope")),
            "type": self._type("Digital stethoscope"),
        }
        return self._device(f"stethoscope/{model}/{serial}", without_empty(device))

    def _device(self, key: str, fields: Json) -> Json:
        if key not in self._devices:
            self._devices[key] = self._add(f"device/{key}", {"resourceType": "Device", **fields})
        return self._devices[key]

    def _named(self, name: str) -> Json:
        if self._options.release == "r4":
            return {"deviceName": [{"name": name, "type": "user-friendly-name"}]}
        return {"name": [{"value": name, "type": "user-friendly-name"}]}

    def _type(self, text: str) -> Json | list[Json]:
        return concept(text=text) if self._options.release == "r4" else [concept(text=text)]

    def _audio(self, recording: ExaminedRecording, attached: AttachedAudio, subject: Json, number: int) -> Json:
        """Media (R4) or DocumentReference (R5) with the audio, or with its address."""
        content = {
            "contentType": attached.content_type,
            "data": base64.b64encode(attached.content).decode() if attached.url is None else None,
            "url": attached.url,
            "size": len(attached.content),
            "hash": base64.b64encode(hashlib.sha1(attached.content, usedforsecurity=False).digest()).decode(),
            "title": recording.name,
        }
        site, device = body_site(recording.site), self._stethoscope(recording)
        if self._options.release == "r4":
            media = {
                "resourceType": "Media",
                "status": "completed",
                "type": concept("audio"),
                "subject": subject,
                **time_field("createdDateTime", recording.started, self._absent),
                "bodySite": site,
                "device": device,
                "duration": recording.duration_s,
                "content": without_empty(content),
            }
            return without_empty(media)
        attachment = without_empty({**content, "duration": recording.duration_s})
        document = {
            "resourceType": "DocumentReference",
            "status": "current",
            "docStatus": "final",
            "type": concept(text=_AUDIO_CODE),
            "category": [concept("audio")],
            "subject": subject,
            "bodySite": None if site is None else [{"concept": site}],
            "author": None if device is None else [device],
            **time_field("date", recording.started, self._absent),
            "content": [{"attachment": attachment}],
        }
        return without_empty(document)


def _bundle_reference(bundle: BundleIdentity) -> Json:
    identifier = None if bundle.sha256 is None else {"system": f"{_SITE}/bundle-sha256", "value": bundle.sha256}
    return without_empty({"identifier": identifier, "display": f"bundle {bundle.name} {bundle.version}"})


def _conclusion(recording: ExaminedRecording) -> str:
    site = recording.site or "site unknown"
    verdict = recording.verdict or "no verdict"
    if recording.verdict_reason is not None:
        verdict += f" ({recording.verdict_reason})"
    rate = recording.respiratory_rate_bpm
    unsure = ", not confident" if rate is not None and recording.respiratory_rate_confident is False else ""
    return f"{site}: {verdict}, " + ("no respiratory rate" if rate is None else f"{rate:g} breaths/minute{unsure}")
