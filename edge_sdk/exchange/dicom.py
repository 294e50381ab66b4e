"""DICOM: a recording as General Audio Waveform Storage, its exact samples, and the cycles as annotations."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from edge_sdk._version import __version__
from edge_sdk.exchange.audio import ExactAudio
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import CycleSpan, GapSpan, SoundSpan, Span
from edge_sdk.exchange.terminology import CODES, DICOM_SCHEMES
from edge_sdk.extras import require_extra

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UID_ROOT = "2.25"
"""Root under which any UUID is a UID (ISO/IEC 9834-8); an organisation gives its own."""

_NO_DATE = datetime(1900, 1, 1)  # DICOM demands a date; this one is no date of a recording
_SEXES = {"male": "M", "female": "F"}
_CHARACTERS = 64  # of a long string (LO)


def make_uid(seed: str, root: str = UID_ROOT) -> str:
    """UID of a text: the same text gives the same UID; ``root`` is the organisation's, or 2.25."""
    number = int(hashlib.sha256(seed.encode()).hexdigest(), 16)
    return f"{root}.{number % (1 << 128)}"[:64].rstrip(".")


def dicom_file(
    recording: ExaminedRecording,
    audio: ExactAudio,
    *,
    study: str,
    number: int = 1,
    root: str = UID_ROOT,
    patient: str = "",
    deidentified: str | None = None,
) -> bytes:
    """Write one recording as a DICOM file.

    Parameters
    ----------
    recording
        What was found; its metadata, device and times are written as they are.
    audio
        Its samples.
    study
        Text that the recordings of one examination share; its UID and theirs are made of it.
    number
        Of the recording within the examination, from 1.
    root
        Of the UIDs.
    patient
        Patient ID; empty where unknown.
    deidentified
        How patient and device were made unidentifiable; None: they were not.

    Raises
    ------
    MissingDependencyError
        pydicom is not installed.
    """
    require_extra("dicom", "DICOM", "pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, GeneralAudioWaveformStorage

    digest = hashlib.sha256(audio.samples.tobytes()).hexdigest()
    instance = f"{study}/{number}/{digest}"
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"  # UTF-8
    data.SOPClassUID = GeneralAudioWaveformStorage
    data.SOPInstanceUID = make_uid(instance + "/instance", root)
    _patient_and_study(data, recording, make_uid(study + "/study", root), patient, deidentified)
    data.Modality = "AU"
    data.SeriesInstanceUID = make_uid(instance + "/series", root)
    data.SeriesNumber = number
    data.SeriesDescription = _long(" ".join(filter(None, ["Breath sounds", recording.site])))
    data.BodyPartExamined = "CHEST"
    data.Manufacturer = ""
    data.ManufacturerModelName = _long(str(recording.device.get("model") or recording.metadata.get("device") or ""))
    if recording.device.get("serial_number"):
        data.DeviceSerialNumber = _long(str(recording.device["serial_number"]))
    data.SoftwareVersions = [_long(text) for text in software_versions(recording)]
    _waveform(data, recording, audio, number)
    if recording.spans or audio.muted:
        data.WaveformAnnotationSequence = _annotations(recording, audio)

    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.ImplementationVersionName = f"STETHO {__version__}"[:16]
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def software_versions(recording: ExaminedRecording) -> list[str]:
    """SDK and bundle, with their versions, for a record of what produced the results."""
    versions = [f"stethoscope-edge-sdk {recording.sdk_version or __version__}"]
    if recording.bundle is not None:
        versions.append(f"bundle {recording.bundle.name} {recording.bundle.version}")
    return versions


def _patient_and_study(
    data: Dataset, recording: ExaminedRecording, study_uid: str, patient: str, deidentified: str | None
) -> None:
    started = recording.started or _NO_DATE
    data.PatientName = ""
    data.PatientID = _long(patient)
    data.PatientBirthDate = ""
    data.PatientSex = _SEXES.get(str(recording.metadata.get("sex", "")).lower(), "")
    age = recording.metadata.get("age_years")
    if age is not None:
        data.PatientAge = _age(float(age))
    if deidentified is not None:
        data.PatientIdentityRemoved = "YES"
        data.DeidentificationMethod = _long(deidentified)
    data.StudyInstanceUID = study_uid
    data.StudyDate = f"{started:%Y%m%d}" if recording.started else ""
    data.StudyTime = f"{started:%H%M%S}" if recording.started else ""
    data.ReferringPhysicianName = ""
    data.StudyID = ""
    data.AccessionNumber = ""
    data.ContentDate = f"{started:%Y%m%d}"
    data.ContentTime = f"{started:%H%M%S}"
    data.AcquisitionDateTime = f"{started:%Y%m%d%H%M%S.%f}"


def _age(years: float) -> str:
    if years < 2:
        return f"{round(years * 12):03d}M"
    return f"{min(int(years), 999):03d}Y"


def _waveform(data: Dataset, recording: ExaminedRecording, audio: ExactAudio, number: int) -> None:
    from pydicom.dataset import Dataset

    channel = Dataset()
    channel.ChannelSourceSequence = [_coded("physiological-audio")]
    channel.ChannelSampleSkew = 0
    channel.WaveformBitsStored = 16 if audio.bits == 16 else 32
    group = Dataset()
    group.WaveformOriginality = "DERIVED" if audio.muted or not audio.exact else "ORIGINAL"
    group.NumberOfWaveformChannels = 1
    group.NumberOfWaveformSamples = len(audio.samples)
    group.SamplingFrequency = audio.sample_rate
    group.ChannelDefinitionSequence = [channel]
    group.WaveformBitsAllocated = channel.WaveformBitsStored
    group.WaveformSampleInterpretation = "SS" if audio.bits == 16 else "SL"
    group.add_new("WaveformData", "OW", audio.samples.astype(audio.samples.dtype.newbyteorder("<")).tobytes())
    data.InstanceNumber = number
    data.AcquisitionContextSequence = []
    data.WaveformSequence = [group]


def _annotations(recording: ExaminedRecording, audio: ExactAudio) -> list[Dataset]:
    """One text a span, and beside it the codes of its label; both have the number of the span as their group."""
    found: list[Dataset] = []
    rows: list[tuple[float, float, str, Sequence[str]]] = [
        (span.start_s, span.end_s, *_described(span)) for span in recording.spans
    ]
    rows += [(start, end, "muted: talking", ()) for start, end in audio.muted]
    for group, (start_s, end_s, text, codes) in enumerate(rows, 1):
        first = min(round(start_s * audio.sample_rate) + 1, len(audio.samples))  # DICOM counts samples from 1
        last = min(max(round(end_s * audio.sample_rate), first), len(audio.samples))
        for name in (None, *codes):
            item = _annotation(group, first, last)
            if name is None:
                item.UnformattedTextValue = text
            else:
                item.ConceptNameCodeSequence = [_coded("lung-findings")]
                item.ConceptCodeSequence = [_coded(name)]
            found.append(item)
    return found


def _described(span: Span) -> tuple[str, Sequence[str]]:
    """Text of a span, and the names of its codes."""
    if isinstance(span, CycleSpan):
        if span.label is None:
            return f"cycle without a label: {span.quality}", ()
        chance = "" if span.probability is None else f", p {span.probability:.4f}"
        codes = ("crackle", "wheeze") if span.label == "both" else (span.label,) if span.label in CODES else ()
        return f"cycle: {span.publisher_label or span.label}{chance}", codes
    if isinstance(span, SoundSpan):
        chance = "" if span.confidence is None else f", confidence {span.confidence:.4f}"
        return f"sound: {span.kind}{chance}", (span.kind,) if span.kind in CODES else ()
    if isinstance(span, GapSpan):
        return f"gap: {span.lost_samples} samples lost", ()
    return f"quality: {span.state}", ()


def _annotation(group: int, first: int, last: int) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.AnnotationGroupNumber = group
    item.ReferencedWaveformChannels = [1, 1]  # multiplex group, channel
    item.TemporalRangeType = "SEGMENT" if last > first else "POINT"
    item.ReferencedSamplePositions = [first, last] if last > first else [first]
    return item


def _coded(name: str) -> Dataset:
    from pydicom.dataset import Dataset

    code = CODES[name]
    item = Dataset()
    item.CodeValue = code.code
    item.CodingSchemeDesignator = DICOM_SCHEMES[code.system]
    item.CodeMeaning = _long(code.display)
    return item


def _long(text: str) -> str:
    """Cut a text to what a long string holds; a backslash would divide it."""
    return text.replace("\\", "/")[:_CHARACTERS].strip()
