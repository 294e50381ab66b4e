"""``stetho demo``: a simulated patient, live, with the truth beside every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.options import ArtefactOption, BundleOption, JsonOption, SpeedOption

if TYPE_CHECKING:
    from edge_sdk.sinks.truth import Truth


def demo(
    scenario: Annotated[
        str, typer.Option("--scenario", help="healthy, asthma, pneumonia, copd, noisy-ward or apnoea.")
    ] = "asthma",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which patient; the default was never trained on.")
    ] = None,
    duration: Annotated[
        float, typer.Option("--duration", min=1.0, max=3600.0, help="Seconds of sound.", metavar="S")
    ] = 18.0,
    speed: SpeedOption = 1.0,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    json: JsonOption = False,
) -> None:
    """Watch a simulated patient being listened to; ends by itself after 18 seconds."""
    from edge_sdk.cli.runtime.playing import play
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

    loaded = load_bundle(bundle, artefact=artefact)
    seed = DEFAULT_SEED if seed is None else seed
    patient = PhantomSource(scenario, seed=seed, duration_s=duration, paced=True, speed=speed)
    truth = truth_of(scenario, seed, duration, loaded.manifest.decoder.normal_label)
    play(patient, loaded, json=json, metadata={}, truth=truth)


def truth_of(scenario: str, seed: int, duration_s: float, normal: str) -> Truth:
    """All breaths of a simulated patient beforehand: a twin plays them ahead of time."""
    from edge_sdk.sinks.truth import TrueBreath, Truth
    from edge_sdk.sources.phantom import PhantomSource

    with PhantomSource(scenario, seed=seed, duration_s=duration_s) as twin:
        for _ in twin:
            pass
        return Truth((TrueBreath(c.start_s, c.end_s, c.label) for c in twin.truth), normal=normal)
