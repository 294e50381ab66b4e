"""Metadata of a recording as numbers: vocabularies, and z-scores fitted on training rows.

Torch-free: training, bundles and devices encode metadata with the same object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_sdk.settings import Settings
from edge_sdk.vocabulary import SEXES, SITES

FIELDS = ("site", "device", "age_years", "sex", "bmi")
"""Metadata of a recording: columns of a corpus table, keys of ``bundle.stream(metadata=...)``."""

_SHORT = {  # what the publishers of corpora write in file names and tables
    "site": {
        "p1": "left posterior", "p2": "left lateral", "p3": "right posterior", "p4": "right lateral",
        "tc": "trachea", "al": "left anterior", "ar": "right anterior", "pl": "left posterior",
        "pr": "right posterior", "ll": "left lateral", "lr": "right lateral",
    },
    "sex": {"f": "female", "m": "male"},
}  # fmt: skip
_CLOSED = {"site": SITES, "sex": SEXES}
"""Fields whose values are a list; a device may have any name, as new ones appear."""

CATEGORICAL = ("device", "site", "sex")
CONTINUOUS = ("age_years", "bmi", "duration_s")
UNKNOWN = 0  # index of names that are absent, or absent from the training rows
_NO_VALUE = {"", "unknown", "nan", "na", "n/a", "none", "null"}


class MetadataSchema(Settings, frozen=True):
    """Which fields a model reads, their vocabularies and their training statistics.

    Index 0 of every categorical field is UNKNOWN; the name at position ``i`` has index ``i + 1``. The model's graph
    scales and clips continuous values, so ``encode`` returns them in raw units.
    """

    title: ClassVar[str] = "metadata"

    categorical: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)  # field → names, in index order
    continuous: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()  # of the training rows, raw units, one per continuous field
    std: tuple[float, ...] = ()

    def _problem(self) -> str | None:
        unknown = [name for name in self.categorical if name not in CATEGORICAL]
        unknown += [name for name in self.continuous if name not in CONTINUOUS]
        if unknown:
            return f"unknown fields {unknown}; choose among {', '.join(CATEGORICAL + CONTINUOUS)}"
        for name, vocabulary in self.categorical.items():
            if len({_folded(entry) for entry in vocabulary}) != len(vocabulary):
                return f"{name} names an entry twice (case does not count): {list(vocabulary)}"
        if not len(self.continuous) == len(self.mean) == len(self.std):
            return "continuous, mean and std must have equal lengths"
        if not all(math.isfinite(value) for value in self.mean) or not all(0 < value < math.inf for value in self.std):
            return "mean must be finite, std positive and finite"
        return None

    @property
    def fields(self) -> tuple[str, ...]:
        """All field names, categorical first."""
        return (*self.categorical, *self.continuous)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's metadata inputs, in graph order: the keys of ``encode``."""
        return (*self.categorical, *(("cont", "cont_valid") if self.continuous else ()))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """Encode rows of names and numbers as arrays for the model.

        Parameters
        ----------
        rows : sequence of mapping
            One per example. A field may be missing, None, NaN, empty or a name absent from the training rows.

        Returns
        -------
        dict of str to ndarray
            One int32 ``[B]`` per categorical field (0 = UNKNOWN) and, where there are continuous fields,
            ``cont`` float32 ``[B, K]`` in raw units (0 where unknown) and ``cont_valid`` float32 ``[B, K]`` of 0 / 1.
        """
        arrays: dict[str, NDArray[Any]] = {}
        for name, vocabulary in self.categorical.items():
            index = {_folded(entry): position for position, entry in enumerate(vocabulary, start=1)}
            arrays[name] = np.array([index.get(_folded(row.get(name)), UNKNOWN) for row in rows], dtype=np.int32)
        if self.continuous:
            values = [[_number(row.get(name)) for name in self.continuous] for row in rows]
            raw = np.array(values, dtype=np.float32).reshape(len(rows), len(self.continuous))
            valid = np.isfinite(raw)
            arrays["cont"] = np.where(valid, raw, np.float32(0.0))
            arrays["cont_valid"] = valid.astype(np.float32)
        return arrays

    @classmethod
    def fit(cls, rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> MetadataSchema:
        """Collect vocabularies and statistics of the training rows.

        Parameters
        ----------
        rows : iterable of mapping
            Training examples only: no other row may contribute.
        fields : sequence of str
            Inputs of the model, among ``CATEGORICAL`` and ``CONTINUOUS``.

        Raises
        ------
        ValueError
            Unknown field.
        """
        unknown = [name for name in fields if name not in CATEGORICAL + CONTINUOUS]
        if unknown:
            raise ValueError(f"metadata: unknown fields {unknown}; choose among {', '.join(CATEGORICAL + CONTINUOUS)}")
        rows = list(rows)
        categorical: dict[str, tuple[str, ...]] = {}
        for name in [name for name in CATEGORICAL if name in fields]:
            spellings: dict[str, str] = {}
            for row in rows:
                if _folded(row.get(name)):
                    spellings.setdefault(_folded(row.get(name)), str(row[name]).strip())
            categorical[name] = tuple(spellings[key] for key in sorted(spellings))
        continuous = tuple(name for name in CONTINUOUS if name in fields)
        statistics = [_statistics([_number(row.get(name)) for row in rows]) for name in continuous]
        return cls(categorical, continuous, tuple(mean for mean, _ in statistics), tuple(std for _, std in statistics))


def metadata_of(item: object) -> dict[str, Any]:
    """The metadata fields of a corpus ``Recording`` or ``Cycle``: name → value, None where unknown."""
    return {name: getattr(item, name) for name in FIELDS}


def checked_metadata(values: Mapping[str, Any], schema: MetadataSchema | None) -> dict[str, Any]:
    """Metadata as models read it; any spelling of "unknown" is left out.

    Parameters
    ----------
    values
        Field name → value, as a person or a program gave it.
    schema
        Of the model, whose own names are accepted too; None for a model that reads no metadata.

    Raises
    ------
    ValueError
        An unknown field, a site or sex outside the vocabulary, or an age or BMI that is no number; the message has
        what is accepted.
    """
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown metadata {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not _folded(value):
            continue
        if name in _CLOSED:
            found[name] = _of_vocabulary(name, value, schema)
        elif name in CONTINUOUS:
            number = _number(value)
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} {value!r} is no number from 0; give one, or leave it out")
            found[name] = number
        else:
            found[name] = value
    return found


def known_metadata(values: Mapping[str, Any], schema: MetadataSchema | None) -> tuple[dict[str, Any], list[str]]:
    """The fields that :func:`checked_metadata` accepts, and a line for each other: for what a device reports."""
    found: dict[str, Any] = {}
    problems = []
    for name, value in values.items():
        try:
            found |= checked_metadata({name: value}, schema)
        except ValueError as error:
            problems.append(str(error))
    return found, problems


def _of_vocabulary(name: str, value: Any, schema: MetadataSchema | None) -> str:
    own = schema.categorical.get(name, ()) if schema is not None else ()
    folded = _folded(value)
    for entry in (*own, *_CLOSED[name]):
        if _folded(entry) in (folded, _SHORT[name].get(folded)):
            return entry
    shown = ", ".join(dict.fromkeys((*own, *_CLOSED[name])))
    raise ValueError(f"unknown {name} {str(value)!r}; give one of {shown}, or leave it out")


def _folded(name: Any) -> str:
    """Spelling for comparison; empty for all spellings of "unknown"."""
    text = "" if name is None else str(name).strip().casefold()
    return "" if text in _NO_VALUE else text


def _number(value: Any) -> float:
    """The value as a float; NaN where it is no finite number, or too large for float32."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) < 1e30 else math.nan


def _statistics(values: Sequence[float]) -> tuple[float, float]:
    valid = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if valid.size == 0:
        return 0.0, 1.0
    spread = float(valid.std())
    return float(valid.mean()), spread if spread > 1e-6 else 1.0
