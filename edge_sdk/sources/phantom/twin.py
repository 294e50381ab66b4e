"""The truth of a simulated patient before it is played."""

from __future__ import annotations

from edge_sdk.sources.phantom.source import PhantomSource
from edge_sdk.sources.phantom.truth import TrueCycle


def true_cycles(scenario: str, seed: int, duration_s: float) -> list[TrueCycle]:
    """Play an identical patient as fast as possible and return all its cycles.

    Raises
    ------
    SourceError
        If there is no such scenario.
    """
    with PhantomSource(scenario, seed=seed, duration_s=duration_s) as twin:
        for _ in twin:
            pass
        return twin.truth
