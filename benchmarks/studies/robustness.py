"""Where a classifier is weak: groups of patients, and audio made worse, on patients that each fold left out.

The networks of a finished ``stetho train RECIPE --cv N --out RUN`` classify their held-out cycles as they are, and a
part of them with noise, heart sounds, band limits, other levels, clipping and gaps; and noise without breath. Figures
go into the file of the cross-validation (``--cv FILE``), from which ``stetho export --cv FILE`` takes them into the
bundle and its model card.

``python -m benchmarks.studies.robustness RUN compact-joint --root ROOT --cv FILE``
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torchaudio
import typer
from torch import Tensor

from edge_sdk.corpora import load_corpus
from edge_sdk.files import whole_file
from edge_sdk.metrics.groups import age_band, evaluate_groups
from edge_sdk.metrics.ranking import auroc
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.context import in_context
from edge_sdk.training.audio.augment import Randomness, rms
from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.calibration import Decision, Logits
from edge_sdk.training.classification.crossval import finished_folds
from edge_sdk.training.classification.data import TrainingData, load_training_data
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.joint import load_classifier_sides, noise_folds
from edge_sdk.training.classification.sampling import ANNOTATED
from edge_sdk.training.classification.task import schema_of
from edge_sdk.training.corpus import data_folder
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run_folder import RunOptions

SNR_DB = (20, 10, 5, 0)
EVERY = {"sprsound": 12, "icbhi": 2, "hf_lung_labels": 4}
"""Of these corpora every n-th recording is made worse; of others all."""

_HEART_DB = (10, 5, 0)
_ALONE_S = 2.0  # of a window of noise without breath
_LENGTHS_S = ((0.5, "below 0.5 s"), (1.0, "0.5 to 1 s"), (2.0, "1 to 2 s"), (float("inf"), "2 s and more"))

Change = Callable[[Tensor, Randomness], Tensor]


@dataclass(frozen=True)
class Condition:
    """One way in which audio is worse."""

    name: str
    level: str
    change: Change  # windows [B, N] in ±1 → the same shape


def conditions(rate_hz: int, noise: dict[str, AudioBank], heart: AudioBank | None) -> Iterator[Condition]:
    """The clean audio first, then everything that is done to it; ``noise`` holds the clips of each kind."""
    yield Condition("clean", "", lambda wave, _: wave)
    for kind, bank in noise.items():
        for snr in SNR_DB:
            yield Condition(kind.replace("_", " "), f"{snr} dB", _added(bank, snr))
    for snr in SNR_DB:
        yield Condition("white noise", f"{snr} dB", _hiss(snr))
    if heart is not None:
        for snr in _HEART_DB:
            yield Condition("heart", f"{snr} dB", _added(heart, snr))
    for cutoff in (1000, 500, 300):
        yield Condition("low-pass", f"{cutoff} Hz", _band(rate_hz, highest_hz=cutoff))
    for cutoff in (100, 200):
        yield Condition("high-pass", f"{cutoff} Hz", _band(rate_hz, lowest_hz=cutoff))
    for gain_db in (-40, -20):
        yield Condition("level", f"{gain_db} dB", _gain(gain_db))
    for share in (0.01, 0.1):
        yield Condition("clipped", f"{share:.0%} of samples", _clipped(share))
    for share in (0.1, 0.3):
        yield Condition("lost in 50-ms packets", f"{share:.0%}", _lost(share, round(0.05 * rate_hz)))


def _added(bank: AudioBank, snr_db: float) -> Change:
    def change(wave: Tensor, random: Randomness) -> Tensor:
        count, window = wave.shape
        clip = random.integers(count, 0, len(bank.lengths))
        length = torch.from_numpy(bank.lengths)[clip]
        still = torch.ones(count), random.uniform(count, 0.0, 1.0)
        other = bank.gather(torch.from_numpy(bank.starts)[clip], length, window, *still)
        return _at_snr(wave, other, snr_db)

    return change


def _hiss(snr_db: float) -> Change:
    return lambda wave, random: _at_snr(wave, random.normal(*wave.shape), snr_db)


def _at_snr(wave: Tensor, other: Tensor, snr_db: float) -> Tensor:
    """Added at a ratio of powers over the window; scaled down where the sum leaves ±1, as no converter clips it."""
    mixed = wave + other * (rms(wave) / rms(other)) * 10.0 ** (-snr_db / 20.0)
    return mixed / mixed.abs().amax(dim=1, keepdim=True).clamp(min=1.0)


def _band(rate_hz: int, *, lowest_hz: float | None = None, highest_hz: float | None = None) -> Change:
    """Butterworth filter of fourth order."""
    from scipy.signal import butter

    kind, cutoff = ("lowpass", highest_hz) if highest_hz is not None else ("highpass", lowest_hz)
    b, a = (torch.tensor(part, dtype=torch.float64) for part in butter(4, cutoff, kind, fs=rate_hz))
    return lambda wave, _: torchaudio.functional.lfilter(wave.double(), a, b, clamp=False).to(wave)


def _gain(gain_db: float) -> Change:
    """As a 16-bit converter delivers it."""
    return lambda wave, _: (wave * 10.0 ** (gain_db / 20.0) * 32768).round() / 32768


def _clipped(share: float) -> Change:
    def change(wave: Tensor, _: Randomness) -> Tensor:
        bound = wave.abs().quantile(1.0 - share, dim=1, keepdim=True)
        return wave.clamp(-bound, bound)

    return change


def _lost(share: float, packet: int) -> Change:
    """Packets replaced by zeros, as a device without numbered packets delivers them."""

    def change(wave: Tensor, random: Randomness) -> Tensor:
        count, window = wave.shape
        packets = -(-window // packet)
        kept = 1.0 - random.coin(count * packets, share).reshape(count, packets)
        return wave * kept.repeat_interleave(packet, dim=1)[:, :window]

    return change


@dataclass
class _Rows:
    """Held-out cycles of all folds, one entry a cycle."""

    truth: list[str]
    patients: list[str]
    probabilities: list[npt.NDArray[np.float64]]
    predictions: list[str]
    groups: list[dict[str, str]]


def robustness(recipe: Recipe, options: RunOptions, noise_root: Path) -> dict[str, Any]:
    """``groups``, ``degradations`` and ``noise_alone`` of a finished cross-validation; see the module.

    Raises
    ------
    RecipeError, CorpusError, AudioError
        The folder holds no finished cross-validation, or recordings are missing.
    """
    data = load_training_data(load_classifier_sides(recipe, options), recipe, cache=options.cache)
    noise = noise_banks(noise_root, recipe, options)
    all_rows = _Rows([], [], [], [], [])
    scores: dict[tuple[str, str], dict[str, list[tuple[bool, float, bool]]]] = defaultdict(lambda: defaultdict(list))
    alone: dict[str, list[bool]] = defaultdict(list)
    for decision, held_out, trainer in finished_folds(recipe, options, data):
        _whole(all_rows, recipe, data, decision, held_out, trainer)
        for condition in conditions(recipe.spec.rate_hz, noise, data.heart):
            found = _worse(condition, recipe, data, decision, held_out, trainer)
            for corpus, row in found:
                scores[condition.name, condition.level][corpus].append(row)
        for kind, abnormal in noise_alone(recipe, noise, decision, trainer):
            alone[kind].append(abnormal)
    return {
        "groups": _group_rows(all_rows, recipe.labels),
        "noise_alone": [
            {"kind": kind.replace("_", " "), "windows": len(found), "abnormal": float(np.mean(found))}
            for kind, found in alone.items()
        ],
        "degradations": [
            {"condition": name, "level": level, **{corpus: _figures(rows) for corpus, rows in by_corpus.items()}}
            for (name, level), by_corpus in scores.items()
        ],
    }


def noise_banks(root: Path, recipe: Recipe, options: RunOptions) -> dict[str, AudioBank]:
    """Noise by kind; of a recipe that trains on noise only the sources that are held out of every training."""
    corpus, paths = load_corpus("noise", root), defaultdict(list)
    trained = noise_folds(corpus, recipe.joint.noise_held_out) if recipe.joint.noise else {}
    for recording in corpus.recordings:
        if not trained.get(recording.id, False):
            paths[str(recording.raw_label)].append(recording.path)
    return {kind: AudioBank.load(files, recipe.spec, cache=options.cache) for kind, files in sorted(paths.items())}


@torch.no_grad()
def noise_alone(
    recipe: Recipe, noise: dict[str, AudioBank], decision: Decision, trainer: Trainer
) -> Iterator[tuple[str, bool]]:
    """Kind of each window of noise without breath, and whether the network calls it abnormal.

    Nothing of a network that reads metadata: noise has none.
    """
    if schema_of(trainer) is not None:
        return
    spec, front_end = recipe.spec, FoldedFrontEnd(recipe.spec)
    length = round(_ALONE_S * spec.rate_hz)
    for kind, bank in noise.items():
        for first, samples in zip(bank.starts.tolist(), bank.lengths.tolist(), strict=True):
            begin = torch.arange(first, first + max(1, samples - length + 1), length)
            still = torch.ones(len(begin)), torch.zeros(len(begin))
            lengths = torch.full_like(begin, min(length, samples))
            wave = bank.gather(begin, lengths, spec.window_samples, *still, crop=spec.crop)
            logits = trainer.model(front_end(wave)).double().numpy()
            classes = decision.classes(decision.probabilities(logits))
            yield from ((kind, label > 0) for label in classes.tolist())


def _decided(
    recipe: Recipe, data: TrainingData, decision: Decision, rows: npt.NDArray[np.bool_], logits: Logits
) -> tuple[Logits, npt.NDArray[np.int64]]:
    events = data.events.where(rows)
    context = in_context(logits, recipe.decision.context, events.recording.tolist(), events.begin.tolist())
    probabilities = decision.probabilities(context)
    return probabilities, decision.classes(probabilities)


def _whole(
    rows: _Rows,
    recipe: Recipe,
    data: TrainingData,
    decision: Decision,
    held_out: npt.NDArray[np.bool_],
    trainer: Trainer,
) -> None:
    chosen = held_out & (data.events.use == ANNOTATED)
    events = data.events.where(chosen)
    logits = cycle_logits(trainer.model, recipe, data, events, schema_of(trainer))
    probabilities, classes = _decided(recipe, data, decision, chosen, logits)
    rows.truth += [recipe.labels[bit] for bit in events.bits.tolist()]
    rows.patients += events.patient.tolist()
    rows.probabilities += list(probabilities)
    rows.predictions += [recipe.labels[index] for index in classes.tolist()]
    for index, begin, end in zip(events.recording.tolist(), events.begin.tolist(), events.end.tolist(), strict=True):
        metadata, length = data.metadata[index], (end - begin) / recipe.spec.rate_hz
        rows.groups.append(
            {
                "corpus": str(data.corpus[index]),
                "age": age_band(metadata.get("age_years")),
                "sex": str(metadata.get("sex") or "unknown"),
                "site": str(metadata.get("site") or "unknown"),
                "cycle": next(name for bound, name in _LENGTHS_S if length < bound),
            }
        )


def _group_rows(rows: _Rows, labels: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for by in ("age", "sex", "site", "cycle"):
        names = [f"{group['corpus']}, {by} {group[by]}" if by != "cycle" else f"{group['corpus']}, {group[by]}"
                 for group in rows.groups]  # fmt: skip
        scored = evaluate_groups(
            names, rows.truth, np.array(rows.probabilities), rows.patients,
            labels=labels, normal_label=labels[0], predictions=rows.predictions,
        )  # fmt: skip
        found += [{"by": by, **row} for row in sorted(scored, key=lambda row: str(row["group"]))]
    return found


def _worse(
    condition: Condition,
    recipe: Recipe,
    data: TrainingData,
    decision: Decision,
    held_out: npt.NDArray[np.bool_],
    trainer: Trainer,
) -> Iterator[tuple[str, tuple[bool, float, bool]]]:
    """Corpus; abnormal or not, probability and prediction, of each held-out cycle of the chosen recordings."""
    corpora = data.corpus[data.events.recording]
    every = np.array([EVERY.get(str(name), 1) for name in corpora.tolist()])
    chosen = held_out & (data.events.use == ANNOTATED) & (data.events.recording % every == 0)
    random = Randomness(torch.Generator().manual_seed(0))
    logits = cycle_logits(
        trainer.model,
        recipe,
        data,
        data.events.where(chosen),
        schema_of(trainer),
        change=lambda wave: condition.change(wave, random),
    )
    probabilities, classes = _decided(recipe, data, decision, chosen, logits)
    for corpus, bits, p, label in zip(
        corpora[chosen].tolist(), data.events.bits[chosen].tolist(), probabilities, classes.tolist(), strict=True
    ):
        yield corpus, (bits > 0, float(1.0 - p[0]), label > 0)


def _figures(rows: Sequence[tuple[bool, float, bool]]) -> dict[str, Any]:
    abnormal, p_abnormal, positive = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "n": len(rows),
        "auroc": auroc(abnormal, p_abnormal),
        "sensitivity": float(positive[abnormal].mean()) if abnormal.any() else None,
        "specificity": float(1.0 - positive[~abnormal].mean()) if (~abnormal).any() else None,
    }


def main(
    run: Annotated[Path, typer.Argument(help="Folder of the cross-validation.")],
    recipe: Annotated[str, typer.Argument(help="Its recipe.")],
    root: Annotated[Path, typer.Option(help="Folder of the main corpus.")],
    cv: Annotated[Path, typer.Option(help="File of the cross-validation that gets the figures.")],
    corpus: Annotated[str, typer.Option(help="The main corpus.")] = "sprsound",
    noise: Annotated[Path | None, typer.Option(help="Folder of the noise corpus; else that of STETHO_DATA.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Settings of the cross-validation.")] = None,
) -> None:
    """Measure groups and worse audio out of fold, and add them to a file; JSON lines on stdout."""
    options = RunOptions(corpus, root, run, partial=True)
    report = json.loads(cv.read_text(encoding="utf-8"))
    found = robustness(load_recipe(recipe, overrides=change or []), options, noise or data_folder(root) / "noise")
    with whole_file(cv) as draft:
        draft.write_text(json.dumps(report | found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
