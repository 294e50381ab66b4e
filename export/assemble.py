"""Puts measured artefacts, golden vector and model card into one bundle directory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import __version__
from edge_sdk.runtime.bundle import write_bundle
from edge_sdk.runtime.schema import ArtefactEntry, Golden, Manifest, SegmenterEntry
from edge_sdk.training.checkpoint import Checkpoint
from export.card import model_card
from export.golden import golden_clips, golden_file
from export.pipeline import RESEARCH_USE, Artefact, decoder_of, today

GOLDEN_FILE = "golden.npz"
CARD_FILE = "MODEL_CARD.md"


def assemble(
    checkpoint: Checkpoint,
    artefacts: Sequence[Artefact],
    out: Path,
    *,
    name: str,
    version: str = __version__,
    untrained: bool = False,
    default_format: str | None = None,
) -> Manifest:
    """Write the bundle, whole or not at all, and give back its manifest.

    Parameters
    ----------
    checkpoint
        What the artefacts were made from.
    artefacts
        From :func:`export.pipeline.make_artefacts`.
    out
        The bundle's directory; a bundle already there is replaced.
    name, version
        Of the bundle.
    untrained
        Mark the weights as random.
    default_format
        Artefact that is loaded unless another is asked for. Without one: the smallest verified artefact, else the
        first.

    Raises
    ------
    BundleError
        ``out`` exists and is no bundle.
    """
    verified = [a for a in artefacts if not a.failures]
    chosen = default_format or (min(verified, key=lambda a: len(a.content)) if verified else artefacts[0]).format.name
    golden = golden_file(golden_clips(checkpoint.front_end), {a.format.name: a.golden_logits for a in artefacts})
    manifest = Manifest(
        name=name,
        version=version,
        created=today(),
        sdk_version=__version__,
        description=_description(checkpoint),
        research_use=RESEARCH_USE,
        untrained=untrained,
        labels=list(checkpoint.labels),
        decoder=decoder_of(checkpoint),
        artefacts=[_entry(checkpoint, a, default=a.format.name == chosen) for a in artefacts],
        segmenter=SegmenterEntry(),
        golden=Golden(
            file=GOLDEN_FILE,
            sha256=hashlib.sha256(golden).hexdigest(),
            tolerance={a.format.name: a.format.golden_tolerance for a in artefacts},
        ),
        model_card=CARD_FILE,
        training=_training(checkpoint),
    )
    files = {a.format.file: a.content for a in artefacts} | {
        GOLDEN_FILE: golden,
        CARD_FILE: model_card(msgspec.to_builtins(manifest)).encode(),
    }
    write_bundle(out, manifest, files)
    return manifest


def _entry(checkpoint: Checkpoint, artefact: Artefact, *, default: bool) -> ArtefactEntry:
    return ArtefactEntry(
        file=artefact.format.file,
        format=artefact.format.name,
        precision=artefact.format.precision,
        sha256=hashlib.sha256(artefact.content).hexdigest(),
        bytes=len(artefact.content),
        front_end=checkpoint.front_end.to_dict(),
        default=default,
        verified=not artefact.failures,
        failures=list(artefact.failures),
        parity=artefact.parity,
        accuracy=artefact.accuracy,
    )


def _description(checkpoint: Checkpoint) -> str:
    title = checkpoint.recipe.get("title") or checkpoint.model
    return f"{title} ({checkpoint.model}, size {checkpoint.size}): one breath → {', '.join(checkpoint.labels)}."


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    return {**checkpoint.provenance, "model": checkpoint.model, "size": checkpoint.size, "recipe": checkpoint.recipe}
