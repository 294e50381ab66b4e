"""FHIR R4 and R5: an examination as a Bundle of resources, validated by the models of ``fhir.resources``."""
