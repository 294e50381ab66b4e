"""A simulated patient: breathing, crackles, wheezes, heart, room and voices, with exact ground truth."""

from __future__ import annotations

from edge_sdk.sources.phantom.scenario import SCENARIOS, Scenario
from edge_sdk.sources.phantom.source import DEFAULT_SEED, TRAINING_SEED_LIMIT, PhantomSource
from edge_sdk.sources.phantom.truth import TrueCycle, TrueEvent
from edge_sdk.sources.phantom.variety import random_scenario

__all__ = [
    "DEFAULT_SEED",
    "SCENARIOS",
    "TRAINING_SEED_LIMIT",
    "PhantomSource",
    "Scenario",
    "TrueCycle",
    "TrueEvent",
    "random_scenario",
]
