"""What all faults share: options, bounds, recovery time and the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.core.harness import Row, percentiles

Arrival: TypeAlias = tuple[int, int, int, float]
"""A block at the sink: monotonic clock (ns), first sample, number of samples, delay (s)."""

RATE_HZ = 8000
ON_TIME_S = 0.1
"""A block that takes longer from its capture to the sink is late."""

RECOVERY_BOUND_S = 1.0
"""For faults in the computer: from their end until every block is on time."""

LEAST_PATIENT_S = 4.0  # a cycle must fit


@dataclass(frozen=True, slots=True)
class FaultOptions:
    """Which faults, for how long."""

    bundle: str = "default"
    calm_s: float = 3.0  # before and after each fault
    fault_s: float = 5.0
    only: tuple[str, ...] = ()  # names of faults; all where empty

    @classmethod
    def quick(cls, bundle: str = "default", only: tuple[str, ...] = ()) -> FaultOptions:
        """Options of a short run."""
        return cls(bundle=bundle, calm_s=0.15, fault_s=0.3, only=only)


def fault_row(
    fault: str,
    *,
    recovery_s: float | None,
    recovery_bound_s: float | None,
    lost: int,
    lost_bound: int,
    accounted: bool,
    arrivals: Sequence[Arrival] = (),
    **more: Any,
) -> Row:
    """The figures of one fault; ``accounted``: received and reported lost samples add up to those of the source."""
    wrong = []
    if recovery_bound_s is not None and (recovery_s is None or recovery_s > recovery_bound_s):
        wrong.append("never recovered" if recovery_s is None else f"recovered after {recovery_s:.2f} s")
    if lost > lost_bound:
        wrong.append(f"lost {lost} samples")
    if not accounted:
        wrong.append("the count of lost samples is wrong")
    wrong += more.pop("wrong", [])
    row: Row = {
        "fault": fault,
        "recovery_s": recovery_s,
        "recovery_bound_s": recovery_bound_s,
        "lost_samples": lost,
        "lost_bound_samples": lost_bound,
        "sample_rate": RATE_HZ,
        "accounted": accounted,
        "passed": not wrong,
        "why": "; ".join(wrong),
        **more,
    }
    return row | (percentiles([a[3] for a in arrivals]) if arrivals else {})


def recovery_s(arrivals: Sequence[Arrival], end_ns: int) -> float | None:
    """Seconds from the end of a fault until the last late block arrives; None when the very last block is late."""
    after = [a for a in arrivals if a[0] >= end_ns]
    late = [a[0] for a in after if a[3] > ON_TIME_S]
    if not after or (late and late[-1] == after[-1][0]):
        return None
    return (late[-1] - end_ns) / 1e9 if late else 0.0


def on_device_clock(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """The same arrivals with delays against the sample clock of the device, aligned to its earliest block.

    A serial link stamps a block when the host reads it, so that the time in buffers does not show in ``host_ns``.
    """
    if not arrivals:
        return []
    due_s = [(first + n) / RATE_HZ for _, first, n, _ in arrivals]
    start_s = min(a[0] / 1e9 - due for a, due in zip(arrivals, due_s, strict=True))
    return [(*a[:3], a[0] / 1e9 - start_s - due) for a, due in zip(arrivals, due_s, strict=True)]
