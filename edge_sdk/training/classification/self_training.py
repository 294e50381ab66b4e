"""Self-training (noisy student, arXiv:1911.04252): a trained network labels clips that have no label.

The teacher gets each clip as it is; the student learns the labels that the teacher is sure of with all the noise,
filters and mixing of its recipe.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_sdk.errors import RecipeError
from edge_sdk.metrics.calibration import softmax
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.sampling import UNUSED, WEAK
from edge_sdk.training.recipes.recipe import Recipe


def with_pseudo_labels(recipe: Recipe, data: TrainingData) -> TrainingData:
    """The data with its unlabelled clips among the events, those that ``joint.teacher`` is sure of in use.

    Raises
    ------
    CheckpointError
        ``joint.teacher`` is no usable checkpoint.
    RecipeError
        It has another front end, other labels, another kind of head, or needs metadata.
    """
    clips, joint = data.unlabelled, recipe.joint
    if clips is None or not len(clips):
        return data
    teacher = load_checkpoint(Path(joint.teacher))
    if teacher.front_end != recipe.spec or tuple(teacher.labels) != tuple(recipe.labels):
        raise RecipeError(
            f"joint.teacher {joint.teacher} has another front end or other labels than the recipe; "
            f"give a checkpoint of {recipe.name} or of a recipe with the same"
        )
    if teacher.decoder != "softmax" or teacher.metadata:
        raise RecipeError(f"joint.teacher {joint.teacher}: only a network with a softmax head and no metadata teaches")
    probabilities = softmax(cycle_logits(teacher.build(), recipe, data, clips) / teacher.temperature)
    abnormal = 1.0 - probabilities[:, 0]
    sure = (abnormal >= joint.sure_abnormal) | (probabilities[:, 0] >= joint.sure_normal)
    bits = np.where(abnormal >= joint.sure_abnormal, 1 + probabilities[:, 1:].argmax(axis=1), 0)
    labelled = replace(clips, bits=bits, use=np.where(sure, WEAK, UNUSED))
    return replace(data, events=data.events.and_(labelled), unlabelled=None)
