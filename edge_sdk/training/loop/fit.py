"""The training loop: deterministic, resumable after every epoch, silent (progress goes to callbacks)."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.errors import TrainingError
from edge_sdk.models.network import Network
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.data_identity import keep_identity, refuse_other_data
from edge_sdk.training.loop.ema import WeightAverage
from edge_sdk.training.loop.optim import (
    Replay,
    frozen_batch_norm,
    make_optimiser,
    make_sam,
    make_schedule,
    parameter_groups,
)
from edge_sdk.training.loop.parallel import Machine
from edge_sdk.training.loop.sam import SAM
from edge_sdk.training.loop.state import read_state, write_state
from edge_sdk.training.loop.task import HasDevice, HasObjective, HasSources, Task
from edge_sdk.training.recipes.objective_settings import OptimiserSection
from edge_sdk.training.recipes.recipe import FitSection

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """State after an optimiser step, for a progress display."""

    epoch: int  # from 0
    epochs: int
    step: int  # within the epoch, from 1
    steps: int
    loss: float  # of this step's examples


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch, for logs."""

    epoch: int  # from 1
    loss: float  # mean over its steps
    learning_rate: float  # of its last step, first parameter group
    validation: float | None  # the task's figure of merit, higher is better
    cpu_s: float = 0.0  # of this process, validation included; with one thread what a quiet core would take


class Trainer:
    """One run: settings, a task and a seed.

    The random numbers of epoch ``e`` are a function of ``(seed, e)`` alone, so a run that was stopped and resumed
    gives bit for bit the weights of one that was not.

    Parameters
    ----------
    fit : FitSection
        Epochs, batch, learning rate, precision, early stopping.
    optimiser : OptimiserSection
        Kind, schedule, SAM.
    task : Task
        Data, model and loss.
    seed : int
        Weights, sampling, augmentation, dropout.
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    """

    def __init__(
        self, fit: FitSection, optimiser: OptimiserSection, task: Task, seed: int, *, device: str = "cpu"
    ) -> None:
        self.fit = fit
        self.task = task
        self.seed = seed
        self.epoch = 0  # epochs done
        self.losses: list[float] = []  # mean per epoch
        self.validation: list[float] = []  # per epoch, where patients are held out
        self.best_epoch: int | None = None  # counted like ``epoch``: how many were done
        self.reported: dict[str, Any] = {}  # identity of the recordings that figures will be of; set before ``run``
        self._best: dict[str, Tensor] = {}
        self.machine = Machine(fit.precision, device)
        if isinstance(task, HasDevice):
            task.device = self.machine.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = task.build().to(self.machine.device)
        self._objective = task.objective.to(self.machine.device) if isinstance(task, HasObjective) else None
        self._average = WeightAverage(self._model, fit.ema_decay)
        self._steps = max(1, task.steps_per_epoch // fit.accumulate)
        # Keeping a share of the old weights after each step only shortens the step.
        rate = fit.learning_rate * (1.0 - fit.ma_beta)
        groups = parameter_groups(
            self._model, self._objective, fit.weight_decay, rate, spare_vectors=optimiser.spare_vectors
        )
        self._optimiser = make_optimiser(optimiser, groups)
        self._sam = make_sam(optimiser, self._optimiser, self._model)
        self._schedule = make_schedule(
            optimiser, self._optimiser, steps_per_epoch=self._steps, epochs=fit.epochs, warm_up=fit.warm_up
        )
        self._parameters = [parameter for group in groups for parameter in group["params"]]

    @property
    def model(self) -> nn.Module:
        """The network to save, in evaluation mode: averaged weights, of the best epoch where patients are held out."""
        if self.best_epoch in (None, self.epoch):
            return self._average.module
        best = copy.deepcopy(self._average.module)
        best.load_state_dict(self._best)
        return best

    def run(
        self,
        state: Path | None = None,
        on_step: Callable[[Step], None] | None = None,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> nn.Module:
        """Train to the last epoch, from ``state`` if that file exists, and return the network to save.

        Parameters
        ----------
        state : Path, optional
            Written after each epoch, atomically. An interruption costs at most the epoch under way.
        on_step, on_epoch : callable, optional
            Called after each optimiser step and after each epoch, in the first process only.

        Raises
        ------
        CheckpointError
            ``state``, or a finished run in its folder, is of another recipe, seed or data; or it cannot be written.
        TrainingError
            The loss is not finite, or memory does not suffice; ``state`` keeps the last finished epoch.
        """
        if state is not None and state.is_file():
            self._restore(read_state(state, self.identity))
            _log.info("resuming %s after epoch %d", state, self.epoch)
        elif state is not None:
            refuse_other_data(state, self.identity)
        while self.epoch < self.fit.epochs and not self._out_of_patience():
            report = self._run_epoch(on_step)
            if state is not None and self.machine.leads:
                write_state(state, self.identity, self._state())
                keep_identity(state, self.identity)
            self.machine.barrier()
            if on_epoch is not None and self.machine.leads:
                on_epoch(report)
        return self.model

    def _run_epoch(self, on_step: Callable[[Step], None] | None) -> EpochReport:
        began = time.process_time()
        sequence = np.random.SeedSequence([self.seed, self.epoch])
        draws, augmentation, dropout = (int(s.generate_state(1)[0]) for s in sequence.spawn(3))
        numpy_random = np.random.default_rng(draws)
        random = Randomness(torch.Generator().manual_seed(augmentation))
        self._model.train()
        for network in (self._model, self._average.module):
            if isinstance(network, Network):
                network.on_epoch(self.epoch, self.fit.epochs)
        total = 0.0
        with torch.random.fork_rng(devices=self.machine.generators()):
            torch.manual_seed(dropout + self.machine.rank)
            for step in range(1, self._steps + 1):
                with _memory_explained(self.fit):
                    loss = self._step(numpy_random, random, step)
                self._average.update(self._model, self.epoch * self._steps + step)
                total += loss
                if on_step is not None and self.machine.leads:
                    on_step(Step(self.epoch, self.fit.epochs, step, self._steps, loss))
        self.losses.append(total / self._steps)
        self.epoch += 1
        self._validate()
        rate = float(self._schedule.get_last_lr()[0])
        merit = self.validation[-1] if self.validation else None
        return EpochReport(self.epoch, self.losses[-1], rate, merit, time.process_time() - began)

    def _step(self, numpy_random: np.random.Generator, random: Randomness, step: int) -> float:
        """One step of the optimiser on ``accumulate`` batches."""
        with torch.no_grad():
            batches = [
                self.machine.share(self.task.batch(numpy_random, random, self.fit.batch))
                for _ in range(self.fit.accumulate)
            ]
        replay = Replay(random, self.machine.device)
        loss = self._backward(batches, step)
        if self._sam is None:
            self._finish_gradients(batches, step)
            self._optimiser.step()
        else:
            self._sharpness_aware(self._sam, batches, replay, step)
        self._schedule.step()
        self.machine.average_buffers([self._model, *([self._objective] if self._objective is not None else [])])
        return self.machine.mean(loss)

    def _sharpness_aware(self, sam: SAM, batches: list[Any], replay: Replay, step: int) -> None:
        """Climb along the gradients of this process (m-SAM), descend along the mean over all processes."""
        sam.first_step()
        try:
            replay.rewind()  # the same dropout and mixing, so that the passes differ by the climb alone
            with frozen_batch_norm(self._model):
                self._backward(batches, step)
            self._finish_gradients(batches, step)
        except BaseException:
            sam.restore()
            raise
        sam.second_step()

    def _backward(self, batches: list[Any], step: int) -> float:
        """Fresh gradients of the mean loss over ``batches``; returns that loss."""
        self._optimiser.zero_grad()
        total = 0.0
        for batch in batches:
            with self.machine.autocast():
                loss = self.task.loss(self._model, batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(self._not_finite(f"loss is {value}", [batch], step))
            share = loss / len(batches) if len(batches) > 1 else loss
            share.backward()  # type: ignore[no-untyped-call]
            total += value / len(batches)
        return total

    def _finish_gradients(self, batches: list[Any], step: int) -> None:
        """Average over processes and clip; a gradient that is not finite must not reach the weights."""
        self.machine.average_gradients(self._parameters)
        if self.fit.clip_norm > 0:
            norm = nn.utils.clip_grad_norm_(self._parameters, self.fit.clip_norm)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if not bool(torch.isfinite(norm)):
            raise TrainingError(self._not_finite("the gradient is not finite", batches, step))

    def _not_finite(self, what: str, batches: list[Any], step: int) -> str:
        names = (
            sorted({name for batch in batches for name in self.task.sources(batch)})
            if isinstance(self.task, HasSources)
            else []
        )
        where = f"; recordings in the batch: {', '.join(names)}" if names else ""
        return (
            f"{what} in epoch {self.epoch + 1}, step {step}{where}. The state of the last finished epoch is "
            "kept; try a lower --set fit.learning_rate, or check those recordings"
        )

    def _validate(self) -> None:
        value = self.machine.same(self.task.validate(self._average.module) if self.machine.leads else None)
        if value is None:
            return
        self.validation.append(value)
        if self.best_epoch is None or value > self.validation[self.best_epoch - 1]:
            self.best_epoch = self.epoch
            self._best = {name: t.detach().clone() for name, t in self._average.module.state_dict().items()}

    def _out_of_patience(self) -> bool:
        patience = self.fit.patience
        return bool(patience and self.best_epoch is not None and self.epoch - self.best_epoch >= patience)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the weights, and the figures of ``reported``, depend on."""
        return {**self.task.identity(), "seed": self.seed, **self.reported}

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "losses": self.losses,
            "validation": self.validation,
            "best_epoch": self.best_epoch,
            "best": self._best,
            "model": self._model.state_dict(),
            "objective": {} if self._objective is None else self._objective.state_dict(),
            "average": self._average.module.state_dict(),
            "optimiser": (self._sam or self._optimiser).state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.losses = list(state["losses"])
        self.validation = list(state.get("validation", ()))
        self.best_epoch = state.get("best_epoch")
        self._best = dict(state.get("best", {}))
        self._model.load_state_dict(state["model"])
        if self._objective is not None:
            self._objective.load_state_dict(state["objective"])
        self._average.module.load_state_dict(state["average"])
        (self._sam or self._optimiser).load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])


@contextmanager
def _memory_explained(fit: FitSection) -> Iterator[None]:
    """Out of memory, on a GPU or not, becomes an error that names the batch to try."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        text = str(error)
        short = isinstance(error, torch.OutOfMemoryError) or "not enough memory" in text or "can't allocate" in text
        if not short:
            raise
        half = max(1, fit.batch // 2)
        raise TrainingError(
            f"out of memory with batches of {fit.batch}; halve them and keep the step as it is: "
            f"--set fit.batch={half} --set fit.accumulate={2 * fit.accumulate}"
        ) from error
