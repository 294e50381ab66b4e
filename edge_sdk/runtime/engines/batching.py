"""Batching across streams: calls of many streams within a deadline become one run of the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.protocols import Engine
from edge_sdk.runtime.engines.failover import close_engine, engine_switches

DEADLINE_S = 0.02
"""Longest wait of a call for others."""

LARGEST = 64
_ALONE_S = 1.0  # after so long without another caller nobody waits


@dataclass(slots=True)
class _Call:
    inputs: Mapping[str, npt.NDArray[Any]]
    rows: int
    done: threading.Event = field(default_factory=threading.Event)
    outputs: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    error: Exception | None = None


class BatchingEngine:
    """Joins concurrent calls of threads: the first one waits for others, runs all, and hands out the rows.

    A caller that has been alone for a second does not wait. Rows are independent, so that the results are those of
    single calls up to rounding; an error of a joined run is tried again call by call, so that it reaches its own caller
    only.

    Parameters
    ----------
    engine
        Runs batches of any size.
    deadline_s
        Longest wait.
    largest
        Rows of one run.
    """

    def __init__(self, engine: Engine, deadline_s: float = DEADLINE_S, largest: int = LARGEST) -> None:
        self.engine = engine
        self._deadline_s, self._largest = deadline_s, largest
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._led = False  # a caller is collecting
        self._callers: dict[int, float] = {}  # thread → time of its last call
        self.runs = 0  # of the engine
        self.calls = 0

    @property
    def name(self) -> str:
        """Name of the engine behind it."""
        return self.engine.name

    @property
    def switches(self) -> tuple[str, ...]:
        """Fail-overs of the engine behind it."""
        return engine_switches(self.engine)

    def close(self) -> None:
        """Free what the engine holds."""
        close_engine(self.engine)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run arrays by input name, with those of other threads; thread-safe.

        Raises
        ------
        EngineError
            As the engine raises it for these inputs.
        """
        call = _Call(inputs, max((len(v) for v in inputs.values() if v.ndim), default=0))
        with self._changed:
            self.calls += 1
            others = self._others()
            self._waiting.append(call)
            self._changed.notify_all()
            leads = not self._led
            if leads:
                self._led = True
                if others:
                    self._collect()
                batch, self._led = self._take(), False
        if leads:
            self._run(batch)
        call.done.wait()
        if call.error is not None:
            raise call.error
        return call.outputs

    def _others(self) -> bool:
        now, own = time.monotonic(), threading.get_ident()
        self._callers = {key: at for key, at in self._callers.items() if now - at < _ALONE_S}
        self._callers[own] = now
        return len(self._callers) > 1

    def _collect(self) -> None:
        end = time.monotonic() + self._deadline_s
        while sum(call.rows for call in self._waiting) < self._largest and len(self._waiting) < len(self._callers):
            left = end - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                return

    def _take(self) -> list[_Call]:
        batch, self._waiting = self._waiting, []
        return batch

    def _run(self, batch: list[_Call]) -> None:
        shapes: dict[Any, list[_Call]] = {}
        for call in batch:
            shapes.setdefault(tuple((n, v.shape[1:], v.dtype) for n, v in call.inputs.items()), []).append(call)
        for calls in shapes.values():
            try:
                self._run_joined(calls)
            except Exception:
                for call in calls:
                    self._run_alone(call)
            for call in calls:
                call.done.set()

    def _run_joined(self, calls: list[_Call]) -> None:
        joined = {name: np.concatenate([call.inputs[name] for call in calls]) for name in calls[0].inputs}
        self.runs += 1
        outputs, at = self.engine.run(joined), 0
        for call in calls:
            call.outputs = {name: values[at : at + call.rows] for name, values in outputs.items()}
            at += call.rows

    def _run_alone(self, call: _Call) -> None:
        try:
            call.outputs = self.engine.run(call.inputs)
        except Exception as error:
            call.error = error
