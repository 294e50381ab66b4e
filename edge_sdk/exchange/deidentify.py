"""De-identification on the way out: what names a person or a device is dropped, shifted or replaced by a keyed hash.

Only a list of known fields leaves at all, so that a field which a session keeps about a patient never does. Ages follow
the limit of HIPAA's safe harbour (45 CFR 164.514(b)(2)): whole years, none above 89.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import Examination, ExaminedRecording

KEEPABLE = ("dates", "serials", "sources", "age", "bmi")
"""What ``--keep`` names: recording times, serial numbers of devices, file names, exact age, body mass index."""

KEY_VARIABLE = "STETHO_DEIDENTIFY_KEY"
_ALWAYS = ("site", "device", "sex")  # of metadata
_OF_DEVICE = ("model", "firmware")
_OLDEST_YEARS = 89
_LONGEST_SHIFT_DAYS = 3650
_SHORTEST_KEY = 8


@dataclass(frozen=True)
class Deidentification:
    """Rules of one export.

    Attributes
    ----------
    keep
        Names of :data:`KEEPABLE` that stay as they are.
    dates
        ``shift`` by a number of days that the key and the patient determine, so that intervals stay; or ``drop``.
    key
        Secret of the keyed hashes: the same key gives the same pseudonyms in every export.
    patient
        Whose dates shift together; any text.

    Raises
    ------
    ExchangeError
        ``keep`` names something else.
    """

    keep: frozenset[str] = frozenset()
    dates: Literal["shift", "drop"] = "shift"
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    patient: str = ""

    def __post_init__(self) -> None:
        unknown = sorted(self.keep - set(KEEPABLE))
        if unknown:
            raise ExchangeError(f"--keep knows {', '.join(KEEPABLE)}, not {', '.join(unknown)}")

    @property
    def method(self) -> str:
        """How the data was made unidentifiable, in one short line."""
        dates = "dates kept" if "dates" in self.keep else f"dates {'shifted' if self.dates == 'shift' else 'dropped'}"
        serials = "serials kept" if "serials" in self.keep else "serials hashed"
        return f"names dropped, {dates}, {serials}"

    def pseudonym(self, kind: str, text: str) -> str:
        """Keyed hash of a name, 12 hexadecimal digits."""
        return hmac.new(self.key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:12]

    def date(self, when: datetime | None) -> datetime | None:
        """A time as it leaves; None where it is unknown or dropped."""
        if when is None or "dates" in self.keep:
            return when
        if self.dates == "drop":
            return None
        days = 1 + int(self.pseudonym("dates", self.patient), 16) % _LONGEST_SHIFT_DAYS
        return when - timedelta(days=days)


def deidentified(examination: Examination, rules: Deidentification) -> Examination:
    """The same examination as it may leave; the audio itself is not changed, see :mod:`edge_sdk.exchange.speech`."""
    recordings = tuple(_recording(recording, rules) for recording in examination.recordings)
    return Examination(recordings, examination.notes)


def _recording(recording: ExaminedRecording, rules: Deidentification) -> ExaminedRecording:
    alias = f"recording-{rules.pseudonym('source', recording.source)}"
    metadata: dict[str, Any] = {name: recording.metadata[name] for name in _ALWAYS if recording.metadata.get(name)}
    age, bmi = recording.metadata.get("age_years"), recording.metadata.get("bmi")
    if age is not None and ("age" in rules.keep or float(age) < _OLDEST_YEARS + 1):
        metadata["age_years"] = age if "age" in rules.keep else int(float(age))
    if bmi is not None and "bmi" in rules.keep:
        metadata["bmi"] = bmi
    device = {name: recording.device[name] for name in _OF_DEVICE if recording.device.get(name)}
    if serial := recording.device.get("serial"):
        device["serial"] = serial if "serials" in rules.keep else rules.pseudonym("serial", str(serial))
    return replace(
        recording,
        source=recording.source if "sources" in rules.keep else alias,
        alias=None if "sources" in rules.keep else alias,
        metadata=metadata,
        device=device,
        started=rules.date(recording.started),
    )


def read_key(path: Path | None) -> bytes | None:
    """Read the secret from a file, else from ``STETHO_DEIDENTIFY_KEY``; None where there is neither.

    Raises
    ------
    ExchangeError
        The file cannot be read, or the secret is shorter than 8 bytes.
    """
    if path is None:
        key = os.environ.get(KEY_VARIABLE, "").encode()
        if not key:
            return None
    else:
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise ExchangeError(f"the key {path} cannot be read: {error.strerror}") from None
    if len(key) < _SHORTEST_KEY:
        raise ExchangeError(f"a key of {len(key)} bytes can be guessed; make one: openssl rand -hex 32 > key")
    return key


def rules_of(
    keep: Sequence[str], *, dates: Literal["shift", "drop"], key: bytes | None, patient: str
) -> Deidentification:
    """Rules as the command line gives them; without a key a random one serves this export alone."""
    named = frozenset(part.strip() for text in keep for part in text.split(",") if part.strip())
    if key is None:
        return Deidentification(named, dates, patient=patient)
    return Deidentification(named, dates, key, patient)
