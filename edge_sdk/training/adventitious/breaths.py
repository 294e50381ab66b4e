"""The join of a classifier's breaths with the frames of the network: its decision and figures, out of fold."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import RecipeError
from edge_sdk.runtime.decoding import MULTILABEL
from edge_sdk.runtime.verdict.breath_sounds import BreathParams, RecentFrames, frame_sums, joined_scores
from edge_sdk.training.adventitious.inference import SoundOutputs
from edge_sdk.training.calibration import fit_decision
from edge_sdk.training.classification.breakdown import score_folds
from edge_sdk.training.classification.sampling import ANNOTATED, EventTable, Origin
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection
from edge_sdk.training.run_folder import CV_LOGITS_FILE

Floats = npt.NDArray[np.float64]

_COLUMNS = ("probabilities", "labels", "truth", "patient", "recording", "start_s", "end_s", "use", "origin")


@dataclass(frozen=True)
class Breaths:
    """Breaths of a cross-validated classifier, with the logits of the network over each; all out of fold."""

    scores: Floats  # [n, 4] joined, before the decision
    events: EventTable  # begin and end in milliseconds; the patient as in recordings of sounds
    origins: tuple[Origin, ...]

    def fit(self, settings: AdventitiousSection) -> BreathParams:
        """Weights, and the decision on all annotated breaths."""
        kept = self.events.use == ANNOTATED
        decision = fit_decision(self.scores[kept], self.events.bits[kept])
        return BreathParams(settings.breath_own, settings.breath_running, decision.temperature, decision.bias)

    def figures(self, fold: Mapping[str, int]) -> dict[str, Any]:
        """By corpus and device, with decisions fitted on the other folds; ``fold`` of each patient."""
        folds = np.array([fold[patient] for patient in self.events.patient.tolist()], dtype=np.int64)
        return score_folds(MULTILABEL, "softmax", self.scores, self.events, folds, self.origins).by


def breaths_of(outputs: Sequence[SoundOutputs], settings: AdventitiousSection) -> Breaths | None:
    """The breaths of ``adventitious.breaths`` in the recordings of the outputs; None where the setting is absent.

    Raises
    ------
    RecipeError
        The folder holds no breaths of a cross-validated classifier, those of other labels, or of no recording here.
    """
    if settings.breaths is None:
        return None
    table = read_table(Path(settings.breaths))
    frames, places = _frames(outputs)
    patient_of = {f"{o.recording.corpus}/{o.recording.name}": o.recording.patient for o in outputs}
    own, running, rows, patients, origins = [], [], [], [], []
    columns = (table[name].tolist() for name in ("origin", "recording", "start_s", "end_s"))
    for row, (origin, recording, start_s, end_s) in enumerate(zip(*columns, strict=True)):
        corpus, _, device = origin.partition("/")
        name, place = places.get(f"{corpus}/{recording.removeprefix(corpus + '/')}", ("", 0.0))
        found = frames[name].logits(place + start_s, place + end_s) if name in frames else None
        so_far = frames[name].logits(place, place + end_s) if name in frames else None
        if found is None or so_far is None:
            continue
        own.append(found)
        running.append(so_far)
        rows.append(row)
        patients.append(patient_of[name])
        origins.append(Origin(corpus, device))
    kept = {name: table[name][rows] for name in ("probabilities", "truth", "recording", "use", "start_s", "end_s")}
    if not rows or not (kept["use"] == ANNOTATED).any():
        raise RecipeError(f"adventitious.breaths: {settings.breaths} has no annotated breath of a recording used here")
    params = BreathParams(settings.breath_own, settings.breath_running)
    _, recordings = np.unique(kept["recording"], return_inverse=True)
    events = EventTable(
        recordings,
        np.round(1000 * kept["start_s"]).astype(np.int64),
        np.round(1000 * kept["end_s"]).astype(np.int64),
        kept["truth"],
        np.array(patients),
        kept["use"],
    )
    return Breaths(
        joined_scores(kept["probabilities"], np.array(own), np.array(running), params), events, tuple(origins)
    )


def read_table(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """What a classifier's cross-validation keeps of its breaths, by column; errors as :func:`breaths_of`."""
    path = folder / CV_LOGITS_FILE
    try:
        with np.load(path) as file:
            table = {name: file[name] for name in _COLUMNS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RecipeError(
            f"adventitious.breaths: {path} holds no breaths of a cross-validated classifier ({error}); run "
            "'stetho train RECIPE --cv N --out FOLDER', again where an older SDK did"
        ) from error
    if tuple(table["labels"].tolist()) != MULTILABEL:
        raise RecipeError(f"adventitious.breaths: {path} must have the labels {', '.join(MULTILABEL)}")
    return table


def _frames(outputs: Sequence[SoundOutputs]) -> tuple[dict[str, RecentFrames], dict[str, tuple[str, float]]]:
    """Frames of each recording; and the recording and begin of each clip, a whole recording being one."""
    frames: dict[str, RecentFrames] = {}
    places: dict[str, tuple[str, float]] = {}
    for row in outputs:
        name = f"{row.recording.corpus}/{row.recording.name}"
        frames[name] = RecentFrames(row.step_s)
        frames[name].add(0, frame_sums(row.attention, row.clip))
        for clip, place in row.recording.clips_s or ((row.recording.name, 0.0),):
            places[f"{row.recording.corpus}/{clip}"] = (name, place)
    return frames, places
