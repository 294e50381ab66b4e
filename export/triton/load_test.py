"""Load test of a Triton server over HTTP, by KServe v2 with Triton's binary tensors.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import ExportError

_DTYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class TritonLoadOptions:
    """The requests; the test ends after ``requests`` or ``seconds``, whichever comes first."""

    model: str
    concurrency: int = 4  # requests at the same time
    batch: int = 1
    requests: int = 1000
    seconds: float = 10.0
    seed: int = 0


@dataclass(slots=True)
class TritonLoadResult:
    """Latencies, errors and labels of a load test."""

    latencies_ms: list[float] = field(default_factory=list)  # of requests that succeeded
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    labels: dict[str, int] = field(default_factory=dict)  # label → number of cycles

    def summary(self, options: TritonLoadOptions) -> dict[str, Any]:
        """Figures of the run; latencies are ``None`` where no request succeeded."""
        count = len(self.latencies_ms)
        latency = np.asarray(self.latencies_ms or [np.nan])
        figures = {f"p{q}_ms": float(np.percentile(latency, q)) for q in (50, 90, 95, 99)} if count else {}
        return {
            "model": options.model,
            "concurrency": options.concurrency,
            "batch": options.batch,
            "n": count,
            "errors": len(self.errors),
            "first_error": self.errors[0] if self.errors else None,
            "seconds": self.seconds,
            "cycles_per_s": count * options.batch / self.seconds if self.seconds else 0.0,
            **{f"p{q}_ms": figures.get(f"p{q}_ms") for q in (50, 90, 95, 99)},
            "max_ms": float(latency.max()) if count else None,
            "labels": self.labels,
        }


def load_test(url: str, options: TritonLoadOptions) -> TritonLoadResult:
    """Send noise from several threads and measure the response times.

    Parameters
    ----------
    url
        ``http://host:8000``.
    options
        See :class:`TritonLoadOptions`.

    Raises
    ------
    ExportError
        The URL is not valid, no server responds, or the server does not have the model.
    """
    host = _host(url)
    inputs = _model_inputs(host, options.model)
    body, header_length = _request(inputs, options)
    result, lock = TritonLoadResult(), threading.Lock()
    begin = time.perf_counter()
    deadline, remaining = begin + options.seconds, [options.requests]

    def work() -> None:
        connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
        try:
            while time.perf_counter() < deadline:
                with lock:
                    if remaining[0] <= 0:
                        return
                    remaining[0] -= 1
                _one(connection, options.model, body, header_length, result, lock)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, name=f"load-{i}", daemon=True) for i in range(options.concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.seconds = time.perf_counter() - begin
    return result


def _one(
    connection: http.client.HTTPConnection,
    model: str,
    body: bytes,
    header_length: int,
    result: TritonLoadResult,
    lock: threading.Lock,
) -> None:
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header_length)}
    begin = time.perf_counter()
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise OSError(f"HTTP {response.status}: {content[:200].decode(errors='replace')}")
        labels = _labels(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()  # the next request reconnects
        with lock:
            result.errors.append(str(error) or type(error).__name__)
        return
    elapsed = 1e3 * (time.perf_counter() - begin)
    with lock:
        result.latencies_ms.append(elapsed)
        for label in labels:
            result.labels[label] = result.labels.get(label, 0) + 1


def _labels(content: bytes) -> list[str]:
    for output in json.loads(content).get("outputs", []):
        if output.get("name") == "label":
            return [str(label) for label in output["data"]]
    return []


def _host(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.netloc:
        raise ExportError(f"{url!r} is not an address of a Triton server; give for example http://localhost:8000")
    return parts.netloc


def _model_inputs(host: str, model: str) -> Sequence[dict[str, Any]]:
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/v2/models/{model}")
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ExportError(f"no Triton server responds at {host} ({error}); start it or check the address") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ExportError(f"the server at {host} has no model {model!r}; load the repository that holds it")
    try:
        inputs: list[dict[str, Any]] = json.loads(content)["inputs"]
    except (ValueError, KeyError) as error:
        raise ExportError(
            f"the server at {host} does not follow KServe v2; give the address of a Triton server"
        ) from error
    return inputs


def _request(inputs: Sequence[dict[str, Any]], options: TritonLoadOptions) -> tuple[bytes, int]:
    """Body of a request and the length of its JSON part: quiet noise for float inputs, 0 (UNKNOWN) for ids."""
    rng = np.random.default_rng(options.seed)
    described, parts = [], []
    for tensor in inputs:
        kind = tensor["datatype"]
        if kind not in _DTYPES:
            raise ExportError(f"input {tensor['name']} is {kind}; this load test sends FP32, INT32 and INT64")
        shape = [options.batch, *(int(size) for size in tensor["shape"][1:])]
        values: npt.NDArray[Any] = np.zeros(shape, _DTYPES[kind])
        if kind == "FP32":
            values = (rng.standard_normal(shape) * 0.05).astype(np.float32)
        content = values.tobytes()
        parts.append(content)
        described.append(
            {
                "name": tensor["name"], "shape": shape, "datatype": kind,
                "parameters": {"binary_data_size": len(content)},
            }
        )  # fmt: skip
    header = json.dumps({"inputs": described, "outputs": [{"name": "label"}]}).encode()
    return header + b"".join(parts), len(header)
