"""The classifier's probabilities of cycles, from JSON lines: the other half of a verdict's evidence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.errors import RecipeError


class CycleEvidence:
    """Mean probability of abnormal over the labelled cycles of a recording.

    Parameters
    ----------
    files
        ``CORPUS=FILE``: lines of ``stetho screen --json`` or ``stetho evaluate --predictions`` of a classifier that was
        not trained on the patients in them; the summaries of recordings without a cycle belong to them. None given: no
        recording has cycles.
    normal
        Label of cycles without adventitious sounds.

    Raises
    ------
    RecipeError
        A file cannot be read, or holds no cycle.
    """

    def __init__(self, files: Sequence[str], normal: str = "normal") -> None:
        self._cycles: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._covered: set[str] | None = set() if files else None
        for entry in files:
            corpus, equals, path = entry.partition("=")
            if not equals:
                raise RecipeError(f"adventitious.cycles: {entry!r} must be CORPUS=FILE")
            before = len(self._cycles)
            for row in _rows(Path(path)):
                name = f"{corpus}/{row.get('recording') or Path(str(row.get('source'))).stem}"
                if self._covered is not None:
                    self._covered.add(name)
                probabilities = row.get("probabilities")
                if isinstance(probabilities, dict) and normal in probabilities:
                    end_s = float(row.get("end_s") or 0.0)
                    self._cycles[name].append((end_s, 1.0 - float(probabilities[normal])))
            if len(self._cycles) == before:
                raise RecipeError(f"adventitious.cycles: {path} holds no cycle with probabilities")

    def covers(self, recording: str) -> bool:
        """Whether a file has a line of the recording, a summary without a cycle included; all without any file."""
        return self._covered is None or recording in self._covered

    def mean(self, recording: str, seconds: float | None = None) -> float:
        """Mean of the cycles that end within ``seconds``, all where absent; NaN without one.

        Parameters
        ----------
        recording
            ``corpus/name``.
        seconds
            From the start of the recording.
        """
        rows = self._cycles.get(recording, [])
        kept = [p for end_s, p in rows if seconds is None or end_s <= seconds]
        return float(np.mean(kept)) if kept else float("nan")


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise RecipeError(f"adventitious.cycles: {path} is not readable JSON lines ({error})") from error
    return [row for row in found if isinstance(row, dict)]
