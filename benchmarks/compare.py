"""Compares two results files: better, worse, or no difference beyond the noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

ComparisonVerdict = Literal["better", "worse", "no difference", "cannot tell"]

MARGIN = 0.05
"""Two equal runs on a quiet machine differ by up to this share; a smaller change is no difference."""

RESAMPLES = 2000
_FEWEST = 5  # timings needed for an interval

# Figure → whether less is better. Of the percentiles of one distribution only the median is compared.
FIGURES: Mapping[str, bool] = {
    "p50_ms": True,
    "cpu_s_per_hour": True,
    "cpu_load": True,
    "rss_mb": True,
    "load_s": True,
    "rss_slope_mb_per_hour": True,
    "recovery_s": True,
    "lost_samples": True,
    "misses": True,
    "detection_delay_p50_s": True,
    "detection_delay_p95_s": True,
    "most_without_miss": False,
    "cycles_per_s": False,
    "event_f1": False,
    "score": False,
    "score_2class": False,
    "auroc": False,
    "ece": True,
}

_SCORES = ("event_f1", "score", "score_2class", "auroc", "ece")
_COUNTS = ("lost_samples", "misses")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one row in both files."""

    subject: str  # name of the row
    figure: str
    before: float
    after: float
    ratio: float | None  # after / before; None for scores and where ``before`` is 0
    interval: tuple[float, float] | None  # 95 % of the ratio, or of the difference of a score
    verdict: ComparisonVerdict
    reason: str


def ratio_interval(
    after: Sequence[float], before: Sequence[float], *, paired: bool = False, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio after / before with its 95 % bootstrap interval.

    Parameters
    ----------
    after, before
        Timings, any unit.
    paired
        Both were measured in the same rounds: the result is the median of the per-round ratios, else the ratio of the
        medians.

    Returns
    -------
    tuple
        Ratio, lower and upper end.
    """
    a, b = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    rng = np.random.default_rng(seed)
    if paired:
        ratios = a / np.maximum(b, 1e-12)
        draws = np.median(ratios[rng.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
        middle = float(np.median(ratios))
    else:
        top = np.median(a[rng.integers(0, len(a), (RESAMPLES, len(a)))], axis=1)
        bottom = np.median(b[rng.integers(0, len(b), (RESAMPLES, len(b)))], axis=1)
        draws = top / np.maximum(bottom, 1e-12)
        middle = float(np.median(a) / max(float(np.median(b)), 1e-12))
    low, high = np.percentile(draws, (2.5, 97.5))
    return middle, float(low), float(high)


def compare_results(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], *, margin: float = MARGIN
) -> list[Difference]:
    """Every figure that both files have for the same ``subject``, in the order of the second file.

    A timing is better or worse only when the whole 95 % interval of the ratio lies outside ``1 ± margin``. The interval
    is bootstrapped from the timings where the rows keep them (``samples_ms``), else estimated from the percentiles and
    their count; a single figure has no interval and must differ by three margins. Scores are compared by their
    patient-bootstrap intervals.
    """
    earlier = {_key(row): row for row in before if row.get("benchmark") != "machine"}
    found = []
    for row in after:
        other = earlier.get(_key(row))
        if row.get("benchmark") == "machine" or other is None:
            continue
        for figure, less_is_better in FIGURES.items():
            values = [r.get(figure) for r in (other, row)]
            if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
                continue
            found.append(_judge(other, row, figure, less_is_better, margin))
    return found


def unmatched(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of the rows that only the first file has, and of those that only the second has."""
    a, b = ({_key(r): _name(r) for r in rows if r.get("benchmark") != "machine"} for rows in (before, after))
    return [n for k, n in a.items() if k not in b], [n for k, n in b.items() if k not in a]


def _key(row: Mapping[str, Any]) -> str:
    subject = {k: v for k, v in (row.get("subject") or {}).items() if k != "engine"}  # engine versions may differ
    # Two versions of one bundle are compared with each other.
    subject["model"] = str(subject.get("model") or "").rpartition(" ")[0] or subject.get("model")
    where = {k: row.get(k) for k in ("corpus", "split", "unit", "streams", "sessions")}
    if row.get("benchmark") == "soak" and subject.get("part") == "interval":
        where["t_s"] = row.get("t_s")
    return json.dumps([row.get("benchmark"), subject, where], sort_keys=True, default=str)


def _name(row: Mapping[str, Any]) -> str:
    from benchmarks.core.rows import subject_name

    name = f"{row.get('benchmark', '')}: {subject_name(row)}"
    extra = " ".join(str(row[k]) for k in ("corpus", "split", "streams") if row.get(k) is not None)
    return f"{name} ({extra})" if extra else name


def _judge(
    before: Mapping[str, Any], after: Mapping[str, Any], figure: str, less_is_better: bool, margin: float
) -> Difference:
    a, b = float(before[figure]), float(after[figure])
    name = _name(after)
    if figure in _SCORES:
        return _judge_score(name, figure, before, after, less_is_better)
    if a == b:
        return Difference(name, figure, a, b, 1.0, None, "no difference", "the same figure")
    if figure in _COUNTS or a <= 0 or b <= 0:
        verdict: ComparisonVerdict = "better" if (b < a) == less_is_better else "worse"
        return Difference(name, figure, a, b, None, None, verdict, "a count, not a measurement with noise")
    ratio, low, high, reason = _ratio(before, after, figure)
    if low is None or high is None:
        low, high, allowed = ratio, ratio, 3 * margin
        interval = None
    else:
        allowed, interval = margin, (low, high)
    if high < 1 - allowed:
        verdict = "better" if less_is_better else "worse"
    elif low > 1 + allowed:
        verdict = "worse" if less_is_better else "better"
    elif interval is not None and high - low > 4 * margin:
        verdict, reason = "cannot tell", f"{reason}; the noise is larger than the margin"
    else:
        verdict = "no difference"
    return Difference(name, figure, a, b, ratio, interval, verdict, reason)


def _ratio(
    before: Mapping[str, Any], after: Mapping[str, Any], figure: str
) -> tuple[float, float | None, float | None, str]:
    ratio = float(after[figure]) / float(before[figure])
    samples = [r.get("samples_ms") or [] for r in (after, before)]
    if figure in ("p50_ms", "cpu_s_per_hour") and min(map(len, samples)) >= _FEWEST:
        middle, low, high = ratio_interval(*samples)
        return middle, low, high, f"bootstrap of {len(samples[0])} and {len(samples[1])} timings"
    if figure == "p50_ms":
        errors = _relative_error(before), _relative_error(after)
        if errors[0] is not None and errors[1] is not None:
            spread = 1.96 * float(np.hypot(errors[0], errors[1]))
            low, high = ratio * float(np.exp(-spread)), ratio * float(np.exp(spread))
            return ratio, low, high, "from the percentiles and their counts"
    return ratio, None, None, "a single figure; three margins are needed"


def _relative_error(row: Mapping[str, Any]) -> float | None:
    """Relative standard error of a median, from P50 and P90, as if the upper half were half a normal distribution."""
    n, p50, p90 = row.get("n"), row.get("p50_ms"), row.get("p90_ms")
    if not n or n < _FEWEST or not p50 or p90 is None:
        return None
    return float(1.2533 * (p90 - p50) / 1.2816 / p50 / np.sqrt(n))


def _judge_score(
    name: str, figure: str, before: Mapping[str, Any], after: Mapping[str, Any], less_is_better: bool
) -> Difference:
    a, b = float(before[figure]), float(after[figure])
    widths = [_half_width(r, figure) for r in (before, after)]
    if widths[0] is None or widths[1] is None:
        verdict: ComparisonVerdict = "no difference" if a == b else "cannot tell"
        return Difference(name, figure, a, b, None, None, verdict, "no interval of the score in both files")
    half = float(np.hypot(widths[0], widths[1]))
    interval = (b - a - half, b - a + half)
    if interval[0] <= 0 <= interval[1]:
        verdict = "no difference"
    else:
        verdict = "better" if (b < a) == less_is_better else "worse"
    # Both files score the same patients; assuming independent errors is conservative.
    return Difference(name, figure, a, b, None, interval, verdict, "patient-bootstrap intervals of both")


def _half_width(row: Mapping[str, Any], figure: str) -> float | None:
    ends = row.get(f"{figure}_ci")
    return (float(ends[1]) - float(ends[0])) / 2 if ends and None not in ends else None
