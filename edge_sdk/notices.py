"""The research-use notice, in the wording of each place that states it."""

from __future__ import annotations

RESEARCH_USE = "For research use only; not a medical device."
"""Terminal output, live view, session files."""

RESEARCH_USE_IN_BUNDLES = "Research use only: not a medical device, not cleared by any regulator."
"""``bundle.json`` and the model card."""

RESEARCH_USE_IN_FIGURES = "For research use only. Not a medical device."
"""Figure pages, the JSON beside them and the pages of studies."""

RESEARCH_USE_IN_REPORTS = (
    "For research use only. Not a medical device: nothing here says how well a patient is diagnosed, and no figure "
    "holds for another population, stethoscope or machine than those named."
)
"""The benchmark report."""
