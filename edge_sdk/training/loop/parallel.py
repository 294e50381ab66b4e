"""Device, precision and, under ``torchrun``, processes of a run; thin over Lightning Fabric.

Gradients are averaged explicitly instead of by a module wrapper: an objective may pass a batch through the network
several times and through several of its methods, and SAM needs a backward pass that stays local (m-SAM).
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge_sdk.errors import TrainingError

Precision = Literal["fp32", "bf16-mixed"]
_FABRIC_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16-mixed": "bf16-mixed"}


def leave_group() -> None:
    """Leave the process group; a process that simply ends aborts in the threads of its group.

    Does not wait: a process that fails must end, so that ``torchrun`` ends the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Machine:
    """The device and the processes of one run.

    Parameters
    ----------
    precision : str
        ``fp32``, or ``bf16-mixed``: matrix products in bfloat16, weights and sums in float32; no loss scaling needed.
    device : str
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one. Under ``torchrun`` each process takes its own.

    Raises
    ------
    TrainingError
        A GPU is requested and there is none.
    """

    def __init__(self, precision: Precision = "fp32", device: str = "cpu") -> None:
        from lightning_fabric import Fabric

        has_gpu = torch.cuda.is_available()
        if device == "cuda" and not has_gpu:
            raise TrainingError("this machine has no GPU that torch can use; train with --device cpu or auto")
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it prints a line for every process otherwise
        world = int(os.environ.get("WORLD_SIZE", "1"))
        strategy = "ddp" if world > 1 else "auto"
        nodes = world // int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        self._fabric = Fabric(
            accelerator="cuda" if has_gpu and device != "cpu" else "cpu",
            devices=max(1, world // nodes),
            num_nodes=nodes,
            strategy=strategy,
            precision=_FABRIC_PRECISION[precision],
        )
        self._fabric.launch()
        self.device: torch.device = self._fabric.device
        self.rank: int = self._fabric.global_rank
        self.world: int = self._fabric.world_size
        if self.world > 1:
            atexit.unregister(leave_group)
            atexit.register(leave_group)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        context: AbstractContextManager[Any] = self._fabric.autocast()
        return context

    def generators(self) -> list[torch.device]:
        """Devices beside the CPU whose random state a run must restore."""
        return [self.device] if self.device.type == "cuda" else []

    def share(self, batch: Any) -> Any:
        """The rows of a batch that belong to this process, on its device.

        Raises
        ------
        TrainingError
            The batch cannot be divided evenly.
        """
        count = rows_of(batch)
        if count % self.world:
            raise TrainingError(
                f"a batch of {count} cannot be shared by {self.world} processes; "
                f"use --set fit.batch={count // self.world * self.world or self.world}"
            )
        part = count // self.world
        rows = slice(self.rank * part, (self.rank + 1) * part)
        return _map(batch, lambda tensor: (tensor[rows] if self.world > 1 else tensor).to(self.device))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes."""
        if self.world > 1:
            self._average([p.grad for p in parameters if p.grad is not None])

    def average_buffers(self, modules: Iterable[nn.Module]) -> None:
        """Replace running statistics by their mean over all processes."""
        if self.world > 1:
            self._average([b for m in modules for b in m.buffers() if b.dtype.is_floating_point])

    def mean(self, value: float) -> float:
        """Mean of a number over all processes."""
        if self.world == 1:
            return value
        return float(self._reduce(torch.tensor(value, dtype=torch.float64, device=self.device)))

    def same(self, value: float | None) -> float | None:
        """The value of the first process, in every process."""
        if self.world == 1:
            return value
        shared: float | None = self._fabric.broadcast(value)
        return shared

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            self._fabric.barrier()

    def _average(self, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        mean = self._reduce(torch.cat([tensor.detach().flatten() for tensor in tensors]))
        for tensor, part in zip(tensors, mean.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _reduce(self, tensor: Tensor) -> Tensor:
        reduced = self._fabric.all_reduce(tensor, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        return reduced


def rows_of(batch: Any) -> int:
    """Number of examples in a batch: the length of the first tensor found in it."""
    found: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        found.append(len(tensor))
        return tensor

    _map(batch, count)
    if not found:
        raise TrainingError(f"a task must return tensors, got {type(batch).__name__}")
    return found[0]


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``change`` to every tensor of a nested batch; anything else stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        changed = {name: _map(item, change) for name, item in fields.items()}
        same = all(changed[name] is fields[name] for name in fields)
        return value if same else dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return {key: _map(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_map(item, change) for item in value)
    return value
