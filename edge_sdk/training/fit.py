"""The training loop: deterministic, resumable after every epoch, silent (it reports through callbacks)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.errors import CheckpointError
from edge_sdk.models import build_model
from edge_sdk.models.frontend import FoldedFrontEnd
from edge_sdk.training.audio_bank import cyclic_position
from edge_sdk.training.augment import DeviceSimulator, Randomness, mask_features
from edge_sdk.training.data import TrainingData
from edge_sdk.training.ema import WeightAverage
from edge_sdk.training.losses import mixup, smooth_targets, soft_cross_entropy
from edge_sdk.training.recipe import Recipe
from edge_sdk.training.sampling import ExampleSampler
from edge_sdk.training.synthetic import add_adventitious

_log = logging.getLogger(__name__)
STATE_FILE = "last-state.pt"
# Parts of a recipe that may change later.
_AFTER_TRAINING = frozenset({"title", "paper", "protocol", "development", "decision"})


@dataclass(frozen=True)
class Step:
    """What a progress display may want to know after an optimiser step."""

    epoch: int  # from 0
    epochs: int
    step: int  # within the epoch, from 1
    steps: int
    loss: float  # of this batch


class Trainer:
    """One run: a recipe, its data and a seed.

    The random numbers of epoch ``e`` are a function of ``(seed, e)`` alone, so a run that was stopped and resumed
    gives bit for bit the weights of one that was not.

    Parameters
    ----------
    recipe : Recipe
        All settings.
    data : TrainingData
        What the run may see.
    seed : int
        Weights, sampling, augmentation, dropout.
    """

    def __init__(self, recipe: Recipe, data: TrainingData, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.epoch = 0  # epochs done
        self.losses: list[float] = []  # mean per epoch
        self._data = data
        spec = recipe.spec
        self._window = spec.window_samples
        self._sampler = ExampleSampler(data.events, data.bank, recipe.sampling, spec.rate_hz)
        self._simulator = DeviceSimulator(recipe.augment, spec.rate_hz, self._window)
        self._front_end = FoldedFrontEnd(spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = build_recipe_model(recipe)
        self._average = WeightAverage(self._model, recipe.fit.ema_decay)
        fit = recipe.fit
        self._steps = max(1, recipe.sampling.per_epoch // fit.batch)
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, fit.learning_rate, total_steps=max(2, self._steps * fit.epochs), pct_start=fit.warm_up
        )

    @property
    def model(self) -> nn.Module:
        """The averaged model, in evaluation mode: what ships."""
        return self._average.module

    def run(self, state: Path | None = None, on_step: Callable[[Step], None] | None = None) -> nn.Module:
        """Train to the last epoch, from ``state`` if that file exists, and return the averaged model.

        Parameters
        ----------
        state : Path, optional
            Written after each epoch, atomically. An interruption costs at most the epoch under way.
        on_step : callable, optional
            Called after each optimiser step.

        Raises
        ------
        CheckpointError
            ``state`` belongs to another recipe, seed or set of events.
        """
        if state is not None and state.is_file():
            self._restore(state)
            _log.info("resuming %s after epoch %d", state, self.epoch)
        while self.epoch < self.recipe.fit.epochs:
            self._run_epoch(on_step)
            self.epoch += 1
            if state is not None:
                self._save(state)
        return self.model

    def _run_epoch(self, on_step: Callable[[Step], None] | None) -> None:
        sequence = np.random.SeedSequence([self.seed, self.epoch])
        draws, augmentation, dropout = (int(s.generate_state(1)[0]) for s in sequence.spawn(3))
        numpy_random = np.random.default_rng(draws)
        random = Randomness(torch.Generator().manual_seed(augmentation))
        self._model.train()
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(dropout)
            for step in range(1, self._steps + 1):
                loss = self._step(numpy_random, random)
                self._average.update(self._model, self.epoch * self._steps + step)
                total += loss
                if on_step is not None:
                    on_step(Step(self.epoch, self.recipe.fit.epochs, step, self._steps, loss))
        self.losses.append(total / self._steps)

    def _step(self, numpy_random: np.random.Generator, random: Randomness) -> float:
        fit = self.recipe.fit
        features, targets = self._batch(numpy_random, random)
        if fit.mixup_p and float(random.uniform(1, 0.0, 1.0)) < fit.mixup_p:
            features, targets = mixup(features, targets, random)
        loss = soft_cross_entropy(self._model(features), targets)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._model.parameters(), fit.clip_norm)
        self._optimiser.step()
        self._schedule.step()
        return float(loss.detach())

    @torch.no_grad()
    def _batch(self, numpy_random: np.random.Generator, random: Randomness) -> tuple[Tensor, Tensor]:
        """Features ``[B, 1, M, T]`` and targets ``[B, C]``."""
        settings = self.recipe.augment
        count = self.recipe.fit.batch
        examples = self._sampler.draw(count, numpy_random)
        exact = examples.exact
        speed = random.uniform(count, -settings.slow_down, settings.speed_up)
        speed[:exact] *= settings.exact_speed
        phase = random.uniform(count, 0.0, 1.0)
        wave = self._data.bank.gather(examples.start, examples.length, self._window, torch.exp(speed), phase)
        label, loose = examples.label, count - exact
        if loose:
            position = cyclic_position(examples.length, self._window, torch.exp(speed), phase)[exact:]
            position = position.long().clamp(max=self._window - 1)  # sped-up pieces hold a little more
            added, label_added = add_adventitious(
                wave[exact:], label[exact:], position, self.recipe.synthetic, self.recipe.spec.rate_hz, random
            )
            label = torch.cat([label[:exact], label_added])
            noise = self._data.draw_noise(loose, self._window, random)
            heart = self._data.draw_heart(loose, self._window, random)
            wave = torch.cat([wave[:exact], self._simulator(added, noise, heart, random)])
        features = mask_features(self._front_end(wave), settings, random)
        return features, smooth_targets(label, len(self.recipe.labels), self.recipe.fit.label_smoothing)

    def _identity(self) -> dict[str, Any]:
        """What a state must share with a run that resumes from it; texts and decision do not shape the weights."""
        shaping = {key: value for key, value in self.recipe.to_dict().items() if key not in _AFTER_TRAINING}
        return {
            "recipe": shaping,
            "seed": self.seed,
            "events": len(self._data.events),
            "patients": sorted({str(patient) for patient in self._data.events.patient}),
        }

    def _save(self, path: Path) -> None:
        state = {
            "identity": self._identity(),
            "epoch": self.epoch,
            "losses": self.losses,
            "model": self._model.state_dict(),
            "average": self._average.module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        torch.save(state, partial)
        partial.replace(path)

    def _restore(self, path: Path) -> None:
        fix = f"delete {path} or choose another --out to start afresh"
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise CheckpointError(f"training state {path} cannot be read ({error}); {fix}") from error
        mine = self._identity()
        stored = state.get("identity", {})
        different = sorted(key for key in mine if _plain(stored.get(key)) != _plain(mine[key]))
        if different:
            raise CheckpointError(f"training state {path} is of another run ({', '.join(different)} differ); {fix}")
        self.epoch = state["epoch"]
        self.losses = list(state["losses"])
        self._model.load_state_dict(state["model"])
        self._average.module.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])


def build_recipe_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights from torch's current random state."""
    model = recipe.model
    return build_model(
        model.name, size=model.size, classes=len(recipe.labels), front_end=recipe.spec, options=model.options
    )


def _plain(value: Any) -> Any:
    """Tuples become lists, so that values compare equal before and after a file."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
