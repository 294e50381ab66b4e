"""Registry of models: name → builder. Recipes (``edge_sdk/training/recipes/*.yaml``) use these names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from edge_sdk.signal.spec import FrontEndSpec


@dataclass(frozen=True)
class ModelEntry:
    """One published system or one of ours."""

    name: str
    builder: str  # "module:callable", imported late; called with classes=, size=, front_end= and the options
    sizes: tuple[str, ...]  # smallest first
    title: str  # one line for lists
    paper: str = ""  # link; empty for our own
    begins_with: str = ""  # public weights that the settings of the full sizes are made for; empty: none


MODELS: dict[str, ModelEntry] = {}


def register(entry: ModelEntry) -> ModelEntry:
    """Add a model; ``ValueError`` for a second one of the same name."""
    if entry.name in MODELS:
        raise ValueError(f"model {entry.name!r} is registered twice")
    MODELS[entry.name] = entry
    return entry


def model_entry(name: str) -> ModelEntry:
    """The model of that name; ``RecipeError`` lists the names if there is none."""
    try:
        return MODELS[name]
    except KeyError:
        raise RecipeError(f"model {name!r} does not exist; known models: {', '.join(sorted(MODELS))}") from None


def build_model(
    name: str, *, size: str, classes: int, front_end: FrontEndSpec, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Instantiate a model with fresh weights.

    Parameters
    ----------
    name, size : str
        Registry name and one of its sizes.
    classes : int
        Number of logits C.
    front_end : FrontEndSpec
        Fixes the shape of the features, ``[1, mel_bins, frames]``.
    options : mapping
        Keyword arguments of this model's own, from the recipe.

    Returns
    -------
    nn.Module
        ``forward(features [B, 1, M, T], metadata=None) -> logits [B, C]``.

    Raises
    ------
    RecipeError
        Unknown model, size or option.
    """
    entry = model_entry(name)
    if size not in entry.sizes:
        raise RecipeError(f"model {name!r} has no size {size!r}; choose one of {', '.join(entry.sizes)}")
    module, _, attribute = entry.builder.partition(":")
    builder: Callable[..., nn.Module] = getattr(import_module(module), attribute)
    try:
        return builder(classes=classes, size=size, front_end=front_end, **dict(options or {}))
    except TypeError as error:
        raise RecipeError(f"model {name!r} cannot be built with options {dict(options or {})}: {error}") from error


def count_parameters(model: nn.Module) -> int:
    """Learned scalars of the inference graph: parameters only, no running statistics, no training-only heads."""
    inference = getattr(model, "inference_parameters", model.parameters)
    return sum(parameter.numel() for parameter in inference())


register(
    ModelEntry(
        name="compact",
        builder="edge_sdk.models.compact:Compact",
        sizes=("tiny", "small", "base"),
        title="compact CNN for one breath on an edge device",
    )
)

register(
    ModelEntry(
        name="dass",
        builder="edge_sdk.models.dass:Dass",
        sizes=("tiny", "small", "base", "medium"),
        title="DASS: VMamba state space network on spectrograms; Lung-SRAD with Gaussian smoothing",
        paper="https://arxiv.org/abs/2407.04082",
        begins_with="the weights of DASS or VMamba",
    )
)

register(
    ModelEntry(
        name="mri-net",
        builder="edge_sdk.models.mri_net:MriNet",
        sizes=("tiny", "small", "base"),
        title="MRI-Net: interlaced convolutions beside an HTS-AT Swin transformer, weighed per channel",
        begins_with="the AudioSet weights of HTS-AT",
    )
)

register(
    ModelEntry(
        name="ast",
        builder="edge_sdk.models.ast:Ast",
        sizes=("tiny", "small", "base"),
        title="Audio Spectrogram Transformer; option 'conditioning' makes it GRF, FiLM, TAFiLM or SoftFiLM",
        paper="https://arxiv.org/abs/2104.01778",
        begins_with="the AudioSet weights of AST",
    )
)

register(
    ModelEntry(
        name="lung-adapter",
        builder="edge_sdk.models.lung_adapter:LungAdapter",
        sizes=("tiny", "small", "base"),
        title="LungAdapter: small trained adapters inside a frozen AST",
        begins_with="the weights of a trained AST",
    )
)

register(
    ModelEntry(
        name="add",
        builder="edge_sdk.models.add:Add",
        sizes=("tiny", "small", "base"),
        title="ADD: adaptive frequency filter and differential attention before an AST",
        paper="https://arxiv.org/abs/2506.02505",
        begins_with="the AudioSet weights of AST",
    )
)

register(
    ModelEntry(
        name="yamnet",
        builder="edge_sdk.models.yamnet:Yamnet",
        sizes=("tiny", "small", "base", "medium"),
        title="YAMNet: MobileNet-v1 with public AudioSet weights, cut after layer 12 (base) or whole (medium)",
        paper="https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
        begins_with="the AudioSet weights of YAMNet (yamnet.tflite)",
    )
)
register(
    ModelEntry(
        name="yamnet-compact",
        builder="edge_sdk.models.yamnet:YamnetCompact",
        sizes=("tiny", "small", "base"),
        title="YAMNet's trunk and the compact CNN side by side: the mean of their logits",
        begins_with="the AudioSet weights of YAMNet (yamnet.tflite)",
    )
)
