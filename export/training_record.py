"""The origin of a network as ``bundle.json`` holds it: one form for classifier and segmenter, also from older files.

Networks that were trained on all patients there are have the figures of a cross-validation (``cv.json``) instead of
those of a held-out split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from edge_sdk.errors import ExportError

CLASSIFIER_FIGURES = (
    "n", "patients", "specificity", "sensitivity", "score", "score_ci", "score_2class", "auroc", "auroc_ci",
    "auroc_crackle", "auroc_wheeze", "ece",
)  # fmt: skip
"""Figures of out-of-fold cycles that the bundle and the model card hold."""

GROUP_FIGURES = ("n", "patients", "score", "auroc", "auroc_ci", "ece")
"""Those of a group of patients; a device reads its manifest at every start, the file of the study holds them all."""

ANY_LABEL = "any label"
"""Key for cycles that an older segmenter counted without their labels."""


def training_record(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`~edge_sdk.training.provenance.Provenance`, and all other keys unchanged.

    Parameters
    ----------
    provenance
        Provenance of a checkpoint, or the ``training`` object of a bundle. Older classifiers lack ``phase_clips``.
        Older segmenters counted cycles without labels, and as patients also those of noise recordings: that number
        becomes ``patients_of_cycles_and_noise``, because ``patients`` has one meaning. An untrained network has no
        counts.
    """
    record = dict(provenance)
    if "cycles" not in record:
        return record
    if isinstance(record["cycles"], int):
        record["cycles"] = {ANY_LABEL: record["cycles"]}
        if "patients" in record:
            record["patients_of_cycles_and_noise"] = record.pop("patients")
    record.setdefault("phase_clips", 0)
    record.setdefault("joined_corpora", [])
    if isinstance(record.get("versions"), Mapping):
        record["versions"] = {"python": None, **record["versions"]}
    return record


def read_cross_validation(path: Path, recipe: str) -> dict[str, Any]:
    """The report of ``stetho train RECIPE --cv N``.

    Raises
    ------
    ExportError
        The file is no such report, or that of another recipe.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        found = report["recipe"]
        report["metrics"], report["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is no cv.json of 'stetho train {recipe} --cv N' ({error!r})") from error
    if found != recipe:
        raise ExportError(f"{path} is the cross-validation of {found}, not of {recipe}; give the one of this recipe")
    return dict(report)


def classifier_record(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the ``training`` object of a bundle says of a classifier's cross-validation: figures by corpus and device.

    ``all cycles`` holds those of all annotated cycles together; ``groups``, ``degradations`` and
    ``noise_alone`` are there where ``benchmarks.studies.robustness`` added them to the report.
    """
    folds = report["folds"]
    parts = {"all cycles": report["metrics"], **report.get("by", {})}
    record = {
        "folds": folds if isinstance(folds, int) else len(folds),
        "seed": report["seed"],
        "figures": {name: chosen_figures(figures, CLASSIFIER_FIGURES) for name, figures in parts.items()},
    }
    if "groups" in report:
        names = ("by", "group", *GROUP_FIGURES)
        record["groups"] = [_rounded(chosen_figures(row, names)) for row in report["groups"]]
    if "degradations" in report:
        record["degradations"] = [
            {
                name: _rounded({key: value.get(key) for key in ("n", "auroc")}) if isinstance(value, Mapping) else value
                for name, value in row.items()
            }
            for row in report["degradations"]
        ]
    if "noise_alone" in report:
        record["noise_alone"] = [_rounded(row) for row in report["noise_alone"]]
    return record


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Shares to four decimals."""

    def short(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [short(item) for item in value]
        return round(value, 4) if isinstance(value, float) else value

    return {name: short(value) for name, value in figures.items()}


def chosen_figures(figures: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the figures that are named and defined."""
    return {name: figures[name] for name in names if figures.get(name) is not None}


def without_folders(value: Any) -> Any:
    """A recipe without the folders of the machine that it was trained on: of absolute paths the last part is kept.

    Parameters
    ----------
    value
        Plain builtins; strings may be ``/path/to/file`` or ``NAME=/path/to/folder``.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    name, equals, path = value.rpartition("=")
    return f"{name}{equals}{PurePath(path).name}" if PurePath(path).is_absolute() else value
