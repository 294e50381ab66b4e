"""A classifier of metadata alone, without audio: the control for every conditioned model.

A model with metadata that does not beat this one by a margin may have learned which device is used in which ward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError, MissingDependencyError
from edge_sdk.metadata import FIELDS, MetadataSchema
from edge_sdk.training.classification.data import cycle_metadata

CONTROL_FIELDS = (*FIELDS, "duration_s")


def metadata_only(
    train: Sequence[Cycle], test: Sequence[Cycle], labels: Sequence[str], fields: Sequence[str] = CONTROL_FIELDS
) -> npt.NDArray[np.float64]:
    """Class-balanced logistic regression on metadata.

    Parameters
    ----------
    train, test
        Cycles; vocabularies, scales and weights come from ``train`` alone.
    labels
        Classes, in the order of the result.
    fields
        What the regression reads, among :data:`CONTROL_FIELDS`; unknown values are the training mean, with a flag.

    Returns
    -------
    ndarray
        ``[n, C]`` probabilities of ``test``; 0 for a class that ``train`` lacks.

    Raises
    ------
    CorpusError
        ``train`` holds fewer than two of the classes.
    MissingDependencyError
        scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingDependencyError(
            "the metadata-only control needs scikit-learn; install with: pip install 'stethoscope-edge-sdk[figures]'"
        ) from error
    truth = np.array([labels.index(cycle.label) for cycle in train], dtype=np.int64)
    present = np.unique(truth)
    if len(present) < 2:
        raise CorpusError(
            "the metadata-only control needs at least two classes to learn from; take another --train-split"
        )
    schema = MetadataSchema.fit([cycle_metadata(cycle) for cycle in train], fields)
    model = LogisticRegression(max_iter=2000, class_weight="balanced")
    model.fit(_design(schema, train), truth)
    probabilities = np.zeros((len(test), len(labels)))
    probabilities[:, model.classes_] = model.predict_proba(_design(schema, test))
    return probabilities


def _design(schema: MetadataSchema, cycles: Sequence[Cycle]) -> npt.NDArray[np.float64]:
    """``[n, columns]``: one column for each name of a vocabulary, a z-score and a flag for each number."""
    arrays = schema.encode([cycle_metadata(cycle) for cycle in cycles])
    columns = [
        np.eye(len(names) + 1)[arrays[name]] for name, names in schema.categorical.items()
    ]  # UNKNOWN has a column of its own
    if schema.continuous:
        valid = arrays["cont_valid"].astype(np.float64)
        scores = (arrays["cont"] - np.array(schema.mean)) / np.array(schema.std)
        columns += [np.clip(scores, -4.0, 4.0) * valid, valid]
    return np.concatenate(columns, axis=1)
