"""Around an engine of TensorRT: its execution context, the cache of RTX's compiler, logger and profiler."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_sdk.errors import EngineError
from edge_sdk.files import write_whole

_log = logging.getLogger(__name__)


def quiet_logger(module: Any) -> Any:
    """A logger that passes TensorRT's errors to Python's logging: its own one prints."""
    base: Any = getattr(module, "ILogger", None)
    if base is None:
        return module.Logger(module.Logger.ERROR)

    class _Logger(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            _log.debug("%s: %s", getattr(severity, "name", severity), message.strip())

    return _Logger()


def layer_profiler(module: Any, times: dict[str, float]) -> Any:
    """A profiler that adds the milliseconds of each layer to ``times``; None where the release has none."""
    base: Any = getattr(module, "IProfiler", None)
    if base is None:
        return None

    class _Profiler(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name] = times.get(layer_name, 0.0) + ms

    return _Profiler()


class ContextMaker:
    """Makes the execution context of an engine as well as the release allows.

    Parameters
    ----------
    module
        TensorRT.
    cache
        File of RTX's runtime cache, which saves the compilation at every start; None: none is read or written.
    """

    def __init__(self, module: Any, cache: Path | None) -> None:
        self._trt = module
        self._path = cache
        self._cache: Any = None
        self._written = 0  # bytes of the cache on disk

    def make(self, engine: Any) -> Any:
        """Context with memory for the profile in use only, not for the largest one, where the release can do that.

        Raises
        ------
        EngineError
            There is no memory for it.
        """
        strategy = getattr(
            getattr(self._trt, "ExecutionContextAllocationStrategy", None), "ON_PROFILE_CHANGE", None
        )  # from 10.0.1 on
        if hasattr(engine, "create_runtime_config"):
            config = engine.create_runtime_config()
            if strategy is not None:
                config.set_execution_context_allocation_strategy(strategy)
            self._read_cache(config)
            context = engine.create_execution_context(config)
        elif strategy is not None:
            context = engine.create_execution_context(strategy)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise EngineError("TensorRT has no memory to run the engine; close other programs that use the GPU")
        return context

    def save(self) -> None:
        """Keep what RTX has compiled since the last call."""
        if self._cache is None or self._path is None:
            return
        try:
            content = bytes(self._cache.serialize())
            if len(content) != self._written:
                write_whole(self._path, content)
                self._written = len(content)
        except Exception as error:  # a full disk or a full GPU: the next start compiles again
            _log.warning("RTX's runtime cache was not kept (%s): the next start compiles again", error)
            self._cache = None

    def _read_cache(self, config: Any) -> None:
        if self._path is None or not hasattr(config, "create_runtime_cache"):
            return
        cache = config.create_runtime_cache()
        with suppress(OSError):
            content = self._path.read_bytes()
            if cache.deserialize(content):  # refused where another release or GPU wrote it
                self._written = len(content)
        if config.set_runtime_cache(cache):
            self._cache = cache
