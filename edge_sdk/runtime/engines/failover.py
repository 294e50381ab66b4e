"""Fail-over: an engine that fails in mid-stream is replaced by the next proven one, once, with one warning.

An error of the caller (inputs that do not fit) is one on every engine and replaces none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError, StethoError
from edge_sdk.events import Health, HealthState
from edge_sdk.protocols import Engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replacement:
    """An engine to go on with, made and proven when it is needed."""

    title: str  # for messages
    make: Callable[[], Engine]  # raises where it does not load or is not proven


class FailoverEngine:
    """Runs the first engine until it fails, then the next one that works; never goes back.

    Parameters
    ----------
    engine
        Proven.
    replacements
        Best first; the last one is the CPU.
    """

    def __init__(self, engine: Engine, replacements: Sequence[Replacement]) -> None:
        self._engine = engine
        self._left = list(replacements)
        self._switches: tuple[str, ...] = ()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the engine in use."""
        return self._engine.name

    @property
    def engine(self) -> Engine:
        """The engine in use."""
        return self._engine

    @property
    def switches(self) -> tuple[str, ...]:
        """A line for every replacement so far; a session reports each once."""
        return self._switches

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph; thread-safe.

        Raises
        ------
        EngineError
            The inputs do not fit, or no engine works any more.
        """
        engine = self._engine
        try:
            return _finite(engine.run(inputs))
        except Exception as error:  # libraries of GPUs raise TypeError, RuntimeError, MemoryError, their own kinds
            with self._lock:
                return self._replace(engine, error, inputs)

    def close(self) -> None:
        """Free what the engine in use holds."""
        close_engine(self._engine)

    def _replace(
        self, failed: Engine, error: Exception, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        if self._engine is not failed:  # another thread has replaced it meanwhile
            return self._engine.run(inputs)
        problem = error if isinstance(error, StethoError) else EngineError(f"{type(error).__name__}: {error}")
        for place, replacement in enumerate(self._left):
            engine: Engine | None = None
            try:
                engine = replacement.make()
                outputs = _finite(engine.run(inputs))
            except Exception as reason:  # that one does not work either, or the inputs are at fault
                _log.debug("%s cannot take over: %s", replacement.title, reason)
                close_engine(engine)
                continue
            line = f"engine {failed.name} failed ({problem}); {engine.name} goes on"
            self._engine, self._left = engine, self._left[place + 1 :]
            self._switches = (*self._switches, line)
            _log.warning("%s", line)
            close_engine(failed)
            return outputs
        raise problem from error


def _finite(outputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    for name, values in outputs.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise EngineError(f"{name} is not finite")
    return outputs


def engine_switches(engine: Engine) -> tuple[str, ...]:
    """Lines of the replacements so far; empty for an engine without fail-over."""
    found: tuple[str, ...] = getattr(engine, "switches", ())
    return found


class EngineChanges:
    """Replacements of an engine as changes of health, each once; those before this was made do not count.

    Parameters
    ----------
    engine
        Of a bundle; one without fail-over never changes.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen = len(engine_switches(engine))

    def take(self, state: HealthState = "healthy", at_ns: int = 0) -> list[Health]:
        """Those since the last call; ``state`` and ``at_ns`` are of the source and of the host's clock."""
        lines = engine_switches(self._engine)
        new, self._seen = lines[self._seen :], len(lines)
        return [Health(state, line, at_ns, engine=self._engine.name) for line in new]


def close_engine(engine: Engine | None) -> None:
    """Free the memory of an engine that can do that; a device that is gone is no reason to fail."""
    close = getattr(engine, "close", None)
    if close is not None:
        with suppress(Exception):
            close()
