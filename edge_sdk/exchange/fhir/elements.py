"""Elements that FHIR resources share: coded concepts, quantities, times that may be absent, references in a Bundle."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

from edge_sdk.exchange.terminology import CODES, SNOMED

Json: TypeAlias = dict[str, Any]
Release: TypeAlias = Literal["r4", "r5"]

_ABSENT_URL = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"


def entry_uuid(seed: str) -> str:
    """UUID of an entry of a Bundle: the same text gives the same UUID."""
    return str(uuid.UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=5))


def concept(*names: str, text: str | None = None) -> Json:
    """A CodeableConcept of names in :data:`~edge_sdk.exchange.terminology.CODES`, or of a text alone."""
    coding = [{"system": CODES[n].system, "code": CODES[n].code, "display": display(n)} for n in names]
    return {**({"coding": coding} if coding else {}), **({"text": text} if text else {})}


def display(name: str) -> str:
    """Term of a code, without SNOMED CT's tag in brackets."""
    code = CODES[name]
    return code.display.rpartition(" (")[0] if code.system == SNOMED and code.display.endswith(")") else code.display


def quantity(value: float, unit: str) -> Json:
    """A Quantity in UCUM; ``unit`` is a name of the codes."""
    code = CODES[unit]
    return {"value": value, "unit": code.display, "system": code.system, "code": code.code}


def seconds_range(start_s: float, end_s: float) -> Json:
    """A Range in seconds from the first sample."""
    return {"low": quantity(start_s, "second"), "high": quantity(end_s, "second")}


def time_field(name: str, when: datetime | None, absent: str) -> Json:
    """A field with a time; where it is unknown, the reason stands in its place."""
    if when is not None:
        return {name: when.isoformat(timespec="milliseconds")}
    return {f"_{name}": {"extension": [{"url": _ABSENT_URL, "valueCode": absent}]}}


def body_site(site: str | None) -> Json | None:
    """CodeableConcept of a body site; text alone where no guide has a code; None where the site is unknown."""
    if site is None:
        return None
    return concept(*([site] if site in CODES else []), text=site)


def without_empty(fields: Mapping[str, Any]) -> Json:
    """The fields that have a value; FHIR knows no empty ones."""
    return {key: value for key, value in fields.items() if value is not None and value != [] and value != {}}
