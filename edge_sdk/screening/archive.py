"""Screening on a Ray cluster: recordings spread over its cores; a worker that dies is replaced, its recordings redone.

Every node needs this SDK with extra ``ray`` and sees the recordings (and the bundle) under the same paths.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import EngineError
from edge_sdk.extras import require_extra
from edge_sdk.json_lines import jsonable
from edge_sdk.numbers import whole_number
from edge_sdk.runtime.bundle.load import packaged_bundles
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions, screen_safely
from edge_sdk.screening.worker import catch_warnings, log_again

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_PER_TASK = 4  # recordings that travel together: what is redone when a worker dies


class Screener:
    """One worker: loads the bundle once, with the first recording.

    The options travel with each recording: Ray does not give the arguments of a constructor to the successor of a
    worker whose node died (Ray issue 53727).
    """

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Bundle, ScreenOptions]] = {}
        self._catcher = catch_warnings()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Screen the recording of one row; the result travels as JSON text."""
        if row["options"] not in self._loaded:
            from edge_sdk.runtime.bundle.load import load_bundle

            options = ScreenOptions(**json.loads(row["options"]))
            self._loaded[row["options"]] = load_bundle(options.bundle, artefact=options.artefact), options
        bundle, options = self._loaded[row["options"]]
        item = screen_safely(bundle, Path(os.fsdecode(row["path"])), options)
        # as text: Arrow would give all records of a block the same keys
        result = {"records": jsonable(item.records), "error": item.error, "logged": self._catcher.take()}
        return {"path": row["path"], "result": json.dumps(result)}


def screen_on_ray(
    paths: Sequence[Path], options: ScreenOptions, *, address: str | None, workers: int | None
) -> Iterator[ScreenedRecords]:
    """Screen recordings on a Ray cluster; results come in any order.

    Parameters
    ----------
    paths
        Recordings, as every node sees them.
    address
        Of a running cluster (``auto``, ``ray://host:port``); None starts one on this machine.
    workers
        Processes, one core each; None takes what the cluster has.

    Raises
    ------
    MissingDependencyError
        Ray is not installed.
    EngineError
        No cluster there, or it was lost.
    """
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray = _ray()
    started = False
    try:
        if not ray.is_initialized():
            _check_reachable(address)
            started = True
            _start(ray, address)
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield from _screen(ray, paths, options, max(1, min(workers or cores, cores, len(paths))))
    except (OSError, ray.exceptions.RayError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EngineError(
            f"Ray cluster {address or 'on this machine'}: {first}; look at 'ray status', then run again "
            "(with --results nothing finished is done twice)"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    """Connect, or start a cluster; a node that a busy machine does not start in Ray's fixed 30 s has a second try."""
    for last in (False, True):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            return
        except OSError as error:
            raise RuntimeError(f"{error}; Ray writes to HOME and to RAY_TMPDIR") from error
        except Exception as error:  # "the current node timed out during startup" is a plain Exception
            if last or address is not None or "timed out during startup" not in str(error):
                raise RuntimeError(str(error)) from error
            _log.warning("Ray did not start in time on this machine; it is started once more")
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Fail early: Ray itself retries for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    number = whole_number(port)
    if host and number is not None:
        socket.create_connection((host, number), timeout=_PATIENCE_S).close()


def _ray() -> Any:
    require_extra("ray", "--engine ray", "ray")
    import ray
    import ray.data

    return ray


def _screen(ray: Any, paths: Sequence[Path], options: ScreenOptions, workers: int) -> Iterator[ScreenedRecords]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if options.bundle not in packaged_bundles():
        options = replace(options, bundle=str(Path(options.bundle).resolve()))
    given: dict[bytes, list[str]] = {}  # as bytes: a name need not be valid text; named twice, it is screened once
    for path in paths:
        given.setdefault(os.fsencode(path.resolve()), []).append(str(path))
    rows = [{"path": path, "options": json.dumps(asdict(options))} for path in given]
    tasks = max(1, -(-len(rows) // _PER_TASK))
    screened = ray.data.from_items(rows, override_num_blocks=tasks).map(Screener, concurrency=workers, num_cpus=1)
    for row in screened.iter_rows():
        result = json.loads(row["result"])
        log_again(result["logged"])
        for source in given[row["path"]]:
            records = tuple({**record, "source": source} for record in result["records"])
            yield ScreenedRecords(source, records, result["error"])
