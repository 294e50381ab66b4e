"""Recipes: YAML in, typed and checked settings out. Recipe plus seed define a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from edge_sdk.errors import RecipeError
from edge_sdk.models.registry import model_entry
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection
from edge_sdk.training.recipes.joint_settings import JointSection
from edge_sdk.training.recipes.objective_settings import ObjectiveSection, OptimiserSection, PaperAugmentSection
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.recipes.values import apply_override, resolve

_PACKAGED = "edge_sdk.training.recipes"

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class ModelSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which network."""

    name: str
    size: str = "base"
    options: dict[str, Any] = {}  # keyword arguments of the model's own
    pretrained: str | None = None  # file of public weights to start from


class SamplingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of which recording becomes a training example."""

    per_epoch: int = 4096  # examples drawn per epoch
    class_power: float = 0.5  # a class is drawn with weight count ** (1 - power): 0 natural, 1 balanced
    exact_share: float = 0.3  # share of examples cut exactly as annotated, without device simulation
    window_share: float = 0.4  # of the rest: windows placed around an event, as by an imperfect segmenter
    window_s: tuple[float, float] = (1.0, 3.5)  # their length
    overlap: float = 0.5  # share of an abnormal event that a window must hold to take its label
    jitter: float = 0.09  # of the rest's remainder: standard deviation of each boundary, in lengths of the event
    length_p: Probability = 0.0  # examples of any kind cut or extended to a random length, so that it tells no class
    length_s: tuple[float, float] = (0.5, 3.0)  # that length, uniform in the logarithm
    length_least: Probability = 0.4  # share of the event that such an example keeps at least


class AugmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Device, room and patient simulation on the waveform; decibels, hertz, probabilities."""

    slow_down: float = 0.25  # natural log of the slowest playback: adults are lower and slower than children
    speed_up: float = 0.1  # natural log of the fastest playback
    exact_speed: float = 0.2  # share of that range for examples cut exactly as annotated
    noise_p: float = 0.4  # recordings labelled Poor Quality (crying, speech, handling)
    noise_snr_db: tuple[float, float] = (0.0, 25.0)
    heart_p: float = 0.3  # heart sounds of HLS-CMDS
    heart_db: tuple[float, float] = (-20.0, 8.0)  # heart against lung
    eq_db: float = 8.0  # standard deviation of ten log-spaced control points, itself scaled by U(0, 1)
    tilt_db: float = 4.0  # standard deviation of a linear tilt from 40 Hz to 2 kHz, at the ends
    low_pass_p: float = 0.4
    low_pass_hz: tuple[float, float] = (350.0, 1900.0)
    high_pass_p: float = 0.4
    high_pass_hz: tuple[float, float] = (20.0, 200.0)
    hiss_p: float = 0.3  # coloured noise of the electronics
    hiss_snr_db: tuple[float, float] = (10.0, 45.0)
    gain_db: float = 10.0  # uniform ±; beyond full scale it clips, as a device would
    mask_bins: float = 0.167  # SpecAugment: widest band, as a share of the mel bins
    mask_frames: float = 0.125  # and of the frames
    masks: int = 2
    phase: float = 1.0  # share of the cycle within which the window may begin; 0: always at its first sample


class SyntheticSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Crackles and wheezes added to normal cycles (not to those cut exactly as annotated)."""

    crackle_p: float = 0.0
    crackle_db: tuple[float, float] = (6.0, 24.0)  # peak of the strongest against the RMS of the cycle
    wheeze_p: float = 0.0
    wheeze_db: tuple[float, float] = (-6.0, 12.0)  # RMS against RMS


class MetadataSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Metadata that the network reads; in training, some of it is made UNKNOWN."""

    fields: tuple[Literal["device", "site", "sex", "age_years", "bmi", "duration_s"], ...]
    per_field_dropout: float = 0.15  # probability that one field is made UNKNOWN
    all_dropout: float = 0.1  # that all of them are


class FitSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Optimisation."""

    epochs: Count = 24
    batch: Count = 64  # examples of one pass; a step of the optimiser sees ``accumulate`` times as many
    learning_rate: float = 3e-3  # peak of a one-cycle schedule
    warm_up: float = 0.15  # share of the steps before the peak
    weight_decay: float = 1e-3
    clip_norm: float = 5.0
    label_smoothing: float = 0.05
    mixup_p: float = 0.0  # probability that a batch is mixed with itself, Beta(0.4, 0.4)
    ema_decay: Share = 0.995  # exponential average of the weights, which is what ships; 0: the last weights ship
    ma_beta: Share = 0.0  # share of the old weights that stays at each step (Patch-Mix: 0.5); shortens the step by it
    accumulate: Count = 1  # batches whose gradients make one step
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    validation_share: Share = 0.0  # of the training patients, held out; the epoch that does best on them ships
    patience: int = 0  # epochs without a better figure on them before the run stops; 0: never


class DecisionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From logits to labels; fitted by ``--cv`` on train + val patients and then fixed in the recipe."""

    temperature: float = 1.0
    bias: tuple[float, ...] = ()  # one per logit, added to logits / temperature; empty: none
    threshold: tuple[float, ...] = ()  # of multilabel and binary heads: one per logit; empty: one half
    context: Share = 0.0  # weight of the running mean of the recording's logits, see ``runtime.context``


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that defines a training run but its data folder and seed."""

    name: str
    title: str
    model: ModelSection
    front_end: dict[str, Any]
    paper: str = ""
    development: str = ""  # what the settings were chosen on, for the model card
    task: Literal["classify", "segment", "adventitious"] = "classify"
    protocol: str = ""  # how its published figure was measured, or ours
    labels: tuple[str, ...] = ("normal", "crackle", "wheeze", "both")  # normal first
    labels_scheme: str = "four"  # which of the publisher's labels these are, see ``corpora.labels``
    decoder: Literal["softmax", "multilabel", "binary"] = "softmax"
    heart_corpus: str | None = "hls_cmds"  # folder beside the corpus root; None switches the interference off
    joint: JointSection = JointSection()
    sampling: SamplingSection = SamplingSection()
    augment: AugmentSection = AugmentSection()
    synthetic: SyntheticSection = SyntheticSection()
    paper_augment: PaperAugmentSection = PaperAugmentSection()
    metadata: MetadataSection | None = None
    segment: SegmentSection | None = None  # of task segment
    adventitious: AdventitiousSection | None = None  # of task adventitious
    objective: ObjectiveSection = ObjectiveSection()
    optimiser: OptimiserSection = OptimiserSection()
    fit: FitSection = FitSection()
    decision: DecisionSection = DecisionSection()

    @property
    def spec(self) -> FrontEndSpec:
        """The front end as the shared frozen dataclass."""
        return FrontEndSpec.from_dict(self.front_end)

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, ready for JSON, YAML or a checkpoint."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Check and build; raises ``RecipeError`` naming the key and the reason."""
        try:
            recipe = msgspec.convert(dict(values), cls)
            _ = recipe.spec
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise RecipeError(f"recipe {values.get('name', '?')!r}: {error}") from error
        entry = model_entry(recipe.model.name) if recipe.task == "classify" else None
        if entry is not None and recipe.model.size not in entry.sizes:
            raise RecipeError(f"recipe {recipe.name!r}: no size {recipe.model.size!r}; choose one of {entry.sizes}")
        if len(recipe.decision.bias) not in (0, _logits(recipe)):
            raise RecipeError(
                f"recipe {recipe.name!r}: decision.bias needs one number per label (per logit of "
                f"decoder {recipe.decoder}), or none; --set decision.bias=[] leaves it out"
            )
        if recipe.labels_scheme != "four" and (recipe.sampling.exact_share < 1 or recipe.decoder == "multilabel"):
            raise RecipeError(
                f"recipe {recipe.name!r}: window sampling, added crackles and wheezes and the multilabel head need "
                "the four labels; with another labels_scheme set sampling.exact_share=1 and another decoder"
            )
        if recipe.labels_scheme != "four" and (recipe.joint.extra or recipe.joint.noise):
            raise RecipeError(f"recipe {recipe.name!r}: joint training needs the four labels; leave labels_scheme out")
        if recipe.fit.patience and not recipe.fit.validation_share:
            raise RecipeError(f"recipe {recipe.name!r}: fit.patience needs held-out patients; set fit.validation_share")
        return recipe


def _logits(recipe: Recipe) -> int:
    try:
        return logit_count(recipe.decoder, recipe.labels)
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name!r}: {error}") from error


def recipe_names() -> list[str]:
    """Recipes in the package, sorted."""
    return sorted(p.name.removesuffix(".yaml") for p in files(_PACKAGED).iterdir() if p.name.endswith(".yaml"))


def load_recipe(name: str, *, size: str | None = None, overrides: Iterable[str] = ()) -> Recipe:
    """Read a packaged recipe by name, or a YAML file by path; settle its size and apply ``key=value`` overrides.

    Raises
    ------
    RecipeError
        No such recipe, YAML that does not parse, unknown keys, values of the wrong type.
    """
    values = _read_values(name)
    overrides = list(overrides)
    sizes = [override.partition("=")[2] for override in overrides if override.startswith("model.size=")]
    values = resolve(values, size or (sizes[-1] if sizes else None), _read_values)
    for override in overrides:
        apply_override(values, override, Recipe, Recipe.from_dict)
    if size is not None:
        values["model"]["size"] = size
    return Recipe.from_dict(values)


def _read_values(name: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(_read(name))
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {name!r} must be a mapping of settings")
    return values


def _read(name: str) -> str:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise RecipeError(f"recipe file {name} does not exist; packaged recipes: {', '.join(recipe_names())}")
        return path.read_text(encoding="utf-8")
    if name not in recipe_names():
        raise RecipeError(f"recipe {name!r} does not exist; choose one of {', '.join(recipe_names())} or a .yaml file")
    return (files(_PACKAGED) / f"{name}.yaml").read_text(encoding="utf-8")
