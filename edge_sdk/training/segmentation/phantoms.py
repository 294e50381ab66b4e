"""Simulated patients for training: rates from newborns to sleepers, apnoea, talking, other devices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_sdk.sources.phantom import TRAINING_SEED_LIMIT, PhantomSource, Scenario, random_scenario
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.segmentation.building import segment_section
from edge_sdk.training.segmentation.data import AnnotatedRecording
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans

_MOST_PAUSE = 0.5  # of a breath
Wave = npt.NDArray[np.float32]


def phantom_waves(
    count: int, seconds: float, rates_bpm: tuple[float, float], rate_hz: int, seed: int = 0
) -> list[tuple[Wave, SegmentTruth]]:
    """``count`` patients of ``seconds`` each with their exact truth; a pure function of the arguments."""
    random = np.random.default_rng([seed, 20])
    return [
        _play(
            random_scenario(random, rates_bpm, most_pause=_MOST_PAUSE),
            int(random.integers(TRAINING_SEED_LIMIT)),
            seconds,
            rate_hz,
        )
        for _ in range(count)
    ]


def _play(scenario: Scenario, seed: int, seconds: float, rate_hz: int) -> tuple[Wave, SegmentTruth]:
    source = PhantomSource(scenario, seed=seed, duration_s=seconds, sample_rate=rate_hz, block_s=1.0)
    wave = np.concatenate([block.samples for block in source])
    truth = SegmentTruth(
        Annotation.EXACT,
        cycles=spans([(cycle.onset, cycle.end) for cycle in source.truth]) / rate_hz,
        inspirations=spans([(cycle.onset, cycle.phase_change) for cycle in source.truth]) / rate_hz,
        expirations=spans([(cycle.phase_change, cycle.end) for cycle in source.truth]) / rate_hz,
        phase_annotated=spans([(0.0, seconds)]),
    )
    return wave, truth


def phantom_recordings(count: int, recipe: Recipe, *, seconds: float = 40.0, seed: int = 0) -> list[AnnotatedRecording]:
    """``count`` simulated patients as recordings to be scored on."""
    spec, settings = recipe.spec, segment_section(recipe)
    made = phantom_waves(count, seconds, settings.rates_bpm, spec.rate_hz, seed)
    frames = log_mel_frames([wave for wave, _ in made], spec)
    hop_s = spec.hop_samples / spec.rate_hz
    found = []
    for k, ((wave, truth), mel) in enumerate(zip(made, frames, strict=True)):
        name = f"phantom-{seed}-{k}"
        found.append(AnnotatedRecording(name, name, wave.size, spec.rate_hz, Excerpt(mel, truth, hop_s)))
    return found
