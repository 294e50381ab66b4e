"""``stetho demo``: a simulated patient, live, with the truth beside every label."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_sdk.cli.options import ArtefactOption, BundleOption, JsonOption, SpeedOption


def demo_command(
    scenario: Annotated[
        str, typer.Option("--scenario", help="Patient: healthy, asthma, pneumonia, copd, noisy-ward or apnoea.")
    ] = "asthma",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the patient; the default was never trained on.")
    ] = None,
    duration: Annotated[
        float, typer.Option("--duration", min=1.0, max=3600.0, help="Seconds of audio.", metavar="S")
    ] = 18.0,
    speed: SpeedOption = 1.0,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    json: JsonOption = False,
) -> None:
    """Label the breaths of a simulated patient live; ends by itself after 18 seconds."""
    from edge_sdk.cli.runtime.playing import play
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.sinks.truth import Truth
    from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource
    from edge_sdk.sources.phantom.twin import true_cycles

    loaded = load_bundle(bundle, artefact=artefact)
    seed = DEFAULT_SEED if seed is None else seed
    patient = PhantomSource(scenario, seed=seed, duration_s=duration, paced=True, speed=speed)
    truth = Truth(true_cycles(scenario, seed, duration), normal=loaded.manifest.decoder.normal_label)
    play(patient, loaded, json=json, metadata={}, truth=truth)
