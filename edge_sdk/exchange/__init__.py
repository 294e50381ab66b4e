"""Results for other tools: records (FHIR, DICOM) and annotation formats, de-identified on the way out."""
