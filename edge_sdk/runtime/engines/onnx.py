"""The ONNX Runtime engine: loads one artefact and runs it; stateless."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError

CPU = "CPUExecutionProvider"
LARGE_BYTES = 32 << 20  # of a file: networks beyond have activations of tens of megabytes
Provider = str | tuple[str, dict[str, str]]


def exact_session_options(onnxruntime: Any) -> Any:
    """Session options with which int8 graphs compute the same integers on every processor.

    On x86 processors without VNNI the default kernels for U8 × S8 add pairs of products in 16 bits, which saturate; the
    option makes ONNX Runtime use exact ones there. It has no effect elsewhere.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


class OrtEngine:
    """ONNX Runtime, on the CPU unless other providers are given.

    Parameters
    ----------
    path
        An ``.onnx`` file.
    threads
        Intra-op threads. One is fastest for small models and leaves the other cores to the capture.
    providers
        Execution providers in order of preference, as ONNX Runtime takes them.
    largest_batch
        Larger batches are run in parts; None: of any size.

    Raises
    ------
    EngineError
        ONNX Runtime is missing, cannot load the file, or does not use the first provider.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        providers: Sequence[Provider] = (CPU,),
        *,
        largest_batch: int | None = None,
    ) -> None:
        self._largest_batch = largest_batch
        try:
            from edge_sdk.runtime.engines.library import onnxruntime
        except ImportError as error:
            raise EngineError("onnxruntime is not installed; run 'pip install stethoscope-edge-sdk'") from error
        options = exact_session_options(onnxruntime)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Threads that spin between cycles would occupy the core that captures audio.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # With small activations an arena only holds memory. Large ones would be allocated from the system page by page
        # at every call without it; memory patterns, one block planned for all of them, would raise the peak.
        large = path.is_file() and path.stat().st_size > LARGE_BYTES
        options.enable_cpu_mem_arena, options.enable_mem_pattern = large, not large
        options.log_severity_level = 3
        try:
            # Its own fall-back would rebuild the session on the CPU under the name of the GPU, and print to stdout.
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers), enable_fallback=0
            )
        except Exception as error:  # its exceptions share no base class
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {_first_line(error)}; "
                "export again or upgrade onnxruntime"
            ) from error
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if self._session.get_providers()[0] != first:  # it falls back without an exception when libraries are missing
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot use {first}; install the CUDA and cuDNN that it "
                "was built for ('stetho doctor' shows what is there)"
            )
        self._outputs = [o.name for o in self._session.get_outputs()]
        device = first.removesuffix("ExecutionProvider").lower()
        self._name = f"onnxruntime-{onnxruntime.__version__}-{device}"

    @property
    def name(self) -> str:
        """Engine, version and device."""
        return self._name

    @property
    def inputs(self) -> dict[str, tuple[Any, ...]]:
        """Input name → shape, symbolic axes as strings."""
        return {i.name: tuple(i.shape) for i in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, tuple[Any, ...]]:
        """Output name → shape, symbolic axes as strings."""
        return {o.name: tuple(o.shape) for o in self._session.get_outputs()}

    @property
    def properties(self) -> dict[str, str]:
        """Metadata properties stored in the file: key → value."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph on arrays by input name; return all outputs by name. Thread-safe.

        Raises
        ------
        EngineError
            Names, shapes or types do not match the graph.
        """
        rows, limit = max((len(v) for v in inputs.values() if v.ndim), default=0), self._largest_batch
        if limit is not None and rows > limit:
            parts = [self.run({n: v[at : at + limit] for n, v in inputs.items()}) for at in range(0, rows, limit)]
            return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:
            raise EngineError(f"inference failed: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def bind(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Mapping[str, npt.NDArray[Any]]
    ) -> Callable[[], None]:
        """Make a repeatable run that reads and writes the given arrays in place: nothing is copied or allocated.

        Parameters
        ----------
        inputs, outputs
            All of the graph's, by name; C-contiguous, of the graph's types and fixed shapes. The run keeps them alive.

        Returns
        -------
        callable
            One run; raises ``EngineError`` where the engine fails. Not thread-safe.

        Raises
        ------
        EngineError
            Names, shapes or types do not match the graph.
        """
        session = self._session
        try:
            binding = session.io_binding()
            for bound, bind in ((inputs, binding.bind_input), (outputs, binding.bind_output)):
                for name, array in bound.items():
                    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        except Exception as error:
            raise EngineError(f"the arrays do not fit the graph: {_first_line(error)}") from error
        held = (*inputs.values(), *outputs.values())  # the binding stores their addresses only

        def run(_held: tuple[npt.NDArray[Any], ...] = held) -> None:
            try:
                session.run_with_iobinding(binding)
            except Exception as error:
                raise EngineError(f"inference failed: {_first_line(error)}") from error

        return run


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
