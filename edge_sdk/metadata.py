"""What is known of a recording beside its sound, as numbers: vocabularies, and z-scores fitted on training rows.

Torch-free: training, bundles and devices encode metadata with the same object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = ("site", "device", "age_years", "sex", "bmi")
"""Metadata of a recording: columns of a corpus table, keys of ``bundle.stream(metadata=...)``."""

CATEGORICAL = ("device", "site", "sex")
CONTINUOUS = ("age_years", "bmi", "duration_s")
UNKNOWN = 0  # index of everything that is absent or that training never saw
_NO_VALUE = {"", "unknown", "nan", "na", "n/a", "none", "null"}


@dataclass(frozen=True)
class MetadataSchema:
    """Which fields a model reads, their vocabularies and their training statistics.

    Index 0 of every categorical field is UNKNOWN; the name at position ``i`` has index ``i + 1``. Scaling and clipping
    of continuous values happen inside the model's graph, so ``encode`` returns them in raw units.
    """

    categorical: dict[str, tuple[str, ...]] = field(default_factory=dict)  # field → names, in index order
    continuous: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()  # of the training rows, raw units, one per continuous field
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.categorical if name not in CATEGORICAL]
        unknown += [name for name in self.continuous if name not in CONTINUOUS]
        if unknown:
            raise ValueError(f"metadata: unknown fields {unknown}; choose among {', '.join(CATEGORICAL + CONTINUOUS)}")
        for name, vocabulary in self.categorical.items():
            if len({_folded(entry) for entry in vocabulary}) != len(vocabulary):
                raise ValueError(f"metadata: {name} names an entry twice (case does not count): {list(vocabulary)}")
        if not len(self.continuous) == len(self.mean) == len(self.std):
            raise ValueError("metadata: continuous, mean and std must have equal lengths")
        if not all(math.isfinite(value) for value in self.mean) or not all(0 < value < math.inf for value in self.std):
            raise ValueError("metadata: mean must be finite, std positive and finite")

    @property
    def fields(self) -> tuple[str, ...]:
        """All field names, categorical first."""
        return (*self.categorical, *self.continuous)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's metadata inputs, in graph order: the keys of ``encode``."""
        return (*self.categorical, *(("cont", "cont_valid") if self.continuous else ()))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """Rows of names and numbers → arrays for the model.

        Parameters
        ----------
        rows : sequence of mapping
            One per example. A field may be missing, None, NaN, empty or a name that training never saw.

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
        """Vocabularies and statistics of the training rows; no other row may be among them.

        Parameters
        ----------
        rows : iterable of mapping
            Training examples only.
        fields : sequence of str
            What the model shall read, among ``CATEGORICAL`` and ``CONTINUOUS``.

        Raises
        ------
        ValueError
            A field that does not exist.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, for JSON and checkpoints."""
        return {
            "categorical": {name: list(vocabulary) for name, vocabulary in self.categorical.items()},
            "continuous": list(self.continuous),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MetadataSchema:
        """Read what ``to_dict`` wrote; ``ValueError`` names unknown keys."""
        unknown = sorted(set(values) - {"categorical", "continuous", "mean", "std"})
        if unknown:
            raise ValueError(f"metadata: unknown keys {unknown}; this SDK may be older than the file")
        return cls(
            {name: tuple(vocabulary) for name, vocabulary in values.get("categorical", {}).items()},
            tuple(values.get("continuous", ())),
            tuple(float(value) for value in values.get("mean", ())),
            tuple(float(value) for value in values.get("std", ())),
        )


def metadata_of(item: object) -> dict[str, Any]:
    """The metadata fields of a corpus ``Recording`` or ``Cycle``: name → value, None where unknown."""
    return {name: getattr(item, name) for name in FIELDS}


def _folded(name: Any) -> str:
    """Spelling that is compared; empty for everything that means "not known"."""
    text = "" if name is None else str(name).strip().casefold()
    return "" if text in _NO_VALUE else text


def _number(value: Any) -> float:
    """NaN for everything that is no finite number, or none that float32 can hold."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) < 1e30 else math.nan


def _statistics(values: Sequence[float]) -> tuple[float, float]:
    known = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if known.size == 0:
        return 0.0, 1.0
    spread = float(known.std())
    return float(known.mean()), spread if spread > 1e-6 else 1.0
