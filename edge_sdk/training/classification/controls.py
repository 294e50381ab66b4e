"""What can be told without listening: a classifier of metadata alone, the yardstick of every conditioned model.

A model with metadata that does not beat this one by a margin may have learned which device sits in which ward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError, MissingDependencyError
from edge_sdk.metadata import MetadataSchema, metadata_of

FIELDS = ("device", "site", "sex", "age_years", "bmi", "duration_s")


def metadata_only(
    train: Sequence[Cycle], test: Sequence[Cycle], labels: Sequence[str], fields: Sequence[str] = FIELDS
) -> npt.NDArray[np.float64]:
    """Class-balanced logistic regression on metadata.

    Parameters
    ----------
    train, test
        Breaths; vocabularies, scales and weights come from ``train`` alone.
    labels
        Classes, in the order of the result.
    fields
        What the regression reads, among :data:`FIELDS`; unknown values are the training mean, with a flag.

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
    schema = MetadataSchema.fit(_rows(train), fields)
    model = LogisticRegression(max_iter=2000, class_weight="balanced")
    model.fit(_design(schema, train), truth)
    answer = np.zeros((len(test), len(labels)))
    answer[:, model.classes_] = model.predict_proba(_design(schema, test))
    return answer


def _rows(cycles: Sequence[Cycle]) -> list[dict[str, Any]]:
    return [{**metadata_of(cycle), "duration_s": cycle.duration_s} for cycle in cycles]


def _design(schema: MetadataSchema, cycles: Sequence[Cycle]) -> npt.NDArray[np.float64]:
    """One column a name of each vocabulary, a z-score and a flag a number: ``[n, columns]``."""
    arrays = schema.encode(_rows(cycles))
    columns = [
        np.eye(len(names) + 1)[arrays[name]] for name, names in schema.categorical.items()
    ]  # UNKNOWN has a column of its own
    if schema.continuous:
        known = arrays["cont_valid"].astype(np.float64)
        scores = (arrays["cont"] - np.array(schema.mean)) / np.array(schema.std)
        columns += [np.clip(scores, -4.0, 4.0) * known, known]
    return np.concatenate(columns, axis=1)
