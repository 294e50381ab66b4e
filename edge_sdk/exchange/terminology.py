"""Codes of LOINC, SNOMED CT, UCUM, HL7 and DICOM that records use, each with the place that publishes it so.

SNOMED CT codes were checked against implementation guides that name code and term together; a site that licenses
SNOMED CT should check them against its edition.
"""

from __future__ import annotations

from dataclasses import dataclass

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_HL7 = "http://terminology.hl7.org/CodeSystem/"

DICOM_SCHEMES = {LOINC: "LN", SNOMED: "SCT", UCUM: "UCUM", DICOM: "DCM"}
"""System → designator of DICOM's coded entries."""


@dataclass(frozen=True, slots=True)
class Code:
    """One coded term."""

    system: str
    code: str
    display: str
    origin: str  # where the pair of code and term is published


CODES: dict[str, Code] = {
    "respiratory-rate": Code(LOINC, "9279-1", "Respiratory rate", "FHIR R4 profile resprate"),
    "lung-findings": Code(
        LOINC, "10207-9", "Physical findings of Thorax and Lungs Narrative", "Project Ronin guide, DiagnosticReport"
    ),
    "auscultation": Code(SNOMED, "37931006", "Auscultation (procedure)", "SNOMED CT, not checked in a guide"),
    "normal": Code(SNOMED, "48348007", "Normal breath sounds (finding)", "Paramedicine guide, findings of lung"),
    "abnormal": Code(SNOMED, "301273002", "Abnormal breath sounds (finding)", "KBV children's record, U2 to U9"),
    "crackle": Code(SNOMED, "48409008", "Respiratory crackles (finding)", "HiGHmed cardiology guide, findings"),
    "wheeze": Code(SNOMED, "56018004", "Wheezing (finding)", "PH Road Safety guide, breath sounds"),
    "trachea": Code(SNOMED, "44567001", "Tracheal structure (body structure)", "DICOM CID 4031"),
    "left anterior": Code(
        SNOMED,
        "1290343009",
        "Structure of left half of anterior chest wall (body structure)",
        "Paramedicine guide, chest target site",
    ),
    "right anterior": Code(
        SNOMED,
        "1290342004",
        "Structure of right half of anterior chest wall (body structure)",
        "Paramedicine guide, chest target site",
    ),
    "left posterior": Code(
        SNOMED,
        "788647001",
        "Structure of left half of posterior chest wall (body structure)",
        "Paramedicine guide, chest target site",
    ),
    "right posterior": Code(
        SNOMED,
        "788648006",
        "Structure of right half of posterior chest wall (body structure)",
        "Paramedicine guide, chest target site",
    ),
    "age": Code(LOINC, "30525-0", "Age", "LOINC, not checked in a guide"),
    "bmi": Code(LOINC, "39156-5", "Body mass index (BMI) [Ratio]", "FHIR R4 profile bmi"),
    "year": Code(UCUM, "a", "years", "UCUM"),
    "bmi-unit": Code(UCUM, "kg/m2", "kg/m2", "FHIR R4 profile bmi"),
    "per-minute": Code(UCUM, "/min", "breaths/minute", "FHIR R4 profile resprate"),
    "second": Code(UCUM, "s", "s", "UCUM"),
    "one": Code(UCUM, "1", "1", "UCUM"),
    "vital-signs": Code(_HL7 + "observation-category", "vital-signs", "Vital Signs", "HL7 terminology"),
    "exam": Code(_HL7 + "observation-category", "exam", "Exam", "HL7 terminology"),
    "report": Code(_HL7 + "v2-0074", "OTH", "Other", "HL7 terminology"),
    "audio": Code(_HL7 + "media-type", "audio", "Audio", "HL7 terminology"),
    "unknown": Code(_HL7 + "data-absent-reason", "unknown", "Unknown", "HL7 terminology"),
    "unsupported": Code(_HL7 + "data-absent-reason", "unsupported", "Unsupported", "HL7 terminology"),
    "assembler": Code(_HL7 + "provenance-participant-type", "assembler", "Assembler", "HL7 terminology"),
    "physiological-audio": Code(DICOM, "109115", "Physiological audio signal", "DICOM CID 3000"),
}
"""Name in this SDK (labels, sites, roles) → code."""

NOT_CODED_SITES = ("left lateral", "right lateral")
"""Sites without a code in the guides above: they travel as text."""
