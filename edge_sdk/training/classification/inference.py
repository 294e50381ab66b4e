"""Logits of annotated cycles, out of the audio bank or out of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_sdk.corpora.table import Cycle
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.feature_cache import cached_features
from edge_sdk.training.classification.data import TrainingData, cycle_metadata
from edge_sdk.training.classification.sampling import EventTable
from edge_sdk.training.recipes.recipe import Recipe

Logits = npt.NDArray[np.float64]

_BATCH_SAMPLES = 256 * 12_000  # of audio at once: 256 cycles of our own front end, 24 of 8 s at 16 kHz


@torch.no_grad()
def cycle_logits(
    model: nn.Module,
    recipe: Recipe,
    data: TrainingData,
    events: EventTable,
    schema: MetadataSchema | None = None,
    *,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Logits:
    """Logits ``[n, C]`` of annotated cycles, windowed as the device does; computed on the model's device.

    ``change`` maps windows ``[B, N]`` to what the network receives instead: noise, a filter.
    """
    spec, device = recipe.spec, _device_of(model)
    front_end = FoldedFrontEnd(spec).to(device)
    start = torch.from_numpy(data.bank.starts[events.recording] + events.begin)
    length = torch.from_numpy(events.end - events.begin)
    batches = []
    for some in torch.arange(len(events)).split(max(1, _BATCH_SAMPLES // spec.window_samples)):
        still = torch.ones(len(some)), torch.zeros(len(some))
        wave = data.bank.gather(start[some], length[some], spec.window_samples, *still, crop=spec.crop)
        if change is not None:
            wave = change(wave)
        rows = data.metadata_rows(events.recording[some.numpy()], length[some].numpy(), spec.rate_hz)
        batches.append(_forward(model, front_end(wave.to(device)), schema, rows))
    return np.concatenate(batches)


@torch.no_grad()
def annotated_logits(
    model: nn.Module,
    spec: FrontEndSpec,
    cycles: Sequence[Cycle],
    schema: MetadataSchema | None = None,
    *,
    cache: Path | None = None,
) -> Logits:
    """Logits ``[n, C]`` of cycles read, resampled and windowed by the code that ``stetho evaluate`` uses.

    Their features are kept on disk: seeds, sweeps and networks of one front end compute them once.
    """
    device = _device_of(model)
    features = cached_features(cycles, spec, cache=cache)
    count = max(1, _BATCH_SAMPLES // spec.window_samples)
    rows = []
    for begin in range(0, len(cycles), count):
        metadata = [cycle_metadata(cycle) for cycle in cycles[begin : begin + count]]
        batch = torch.from_numpy(np.array(features[begin : begin + count])).to(device)  # a copy: the map is read-only
        rows.append(_forward(model, batch, schema, metadata))
    return np.concatenate(rows)


def _forward(model: nn.Module, features: Tensor, schema: MetadataSchema | None, rows: Sequence[Any]) -> Logits:
    if schema is None:
        logits = model(features)
    else:
        logits = model(features, Metadata.from_arrays(schema.encode(rows)).to(features.device))
    array: Logits = logits.double().cpu().numpy()
    return array


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
