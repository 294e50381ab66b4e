"""``stetho screen --engine ray``: on two nodes, the same results, also when one of them dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import EngineError
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.screening.archive import _start, screen_on_ray
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions, screen_many
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen short recordings, one of them no audio."""
    folder = tmp_path_factory.mktemp("archive")
    with PhantomSource("asthma", duration_s=40.0, sample_rate=RATE) as patient:
        samples = np.concatenate([block.samples for block in patient])
    for number in range(16):
        soundfile.write(folder / f"{number:02}.wav", samples[number * RATE : (number + 12) * RATE], RATE)
    (folder / "03.wav").write_text("no audio")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def plain(items: list[ScreenedRecords]) -> list[tuple[str, str, bool]]:
    """Comparable, in the order of the sources; how long it took does not count."""

    def without_time(records: tuple[dict[str, Any], ...]) -> str:
        return json.dumps([{k: v for k, v in r.items() if k != "latency_ms"} for r in records], sort_keys=True)

    return sorted((item.source, without_time(item.records), item.error is None) for item in items)


@pytest.mark.long
def test_two_nodes_give_the_results_of_one_machine_also_when_one_dies(recordings: list[Path], cluster: Any) -> None:
    options = ScreenOptions("default")
    expected = plain(list(screen_many(load_bundle("default"), recordings, options, jobs=1)))
    assert sum(not fine for _, _, fine in expected) == 1
    seen: list[ScreenedRecords] = []
    for item in screen_on_ray(recordings, options, address=cluster.address, workers=None):
        seen.append(item)
        if len(seen) == 1:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert plain(seen) == expected


def test_no_cluster_is_one_line_at_once(recordings: list[Path]) -> None:
    with pytest.raises(EngineError, match="ray status") as caught:
        next(screen_on_ray(recordings, ScreenOptions("default"), address="127.0.0.1:9", workers=None))
    assert "\n" not in str(caught.value)


class SlowRay:
    """Ray on a machine that is too busy for its first start, or for every one."""

    def __init__(self, slow: int) -> None:
        self.slow, self.starts, self.shut = slow, 0, 0

    def init(self, **_: Any) -> None:
        self.starts += 1
        if self.starts <= self.slow:
            raise Exception("The current node timed out during startup. This could happen because ...")

    def shutdown(self) -> None:
        self.shut += 1


@pytest.mark.parametrize(("slow", "address", "starts"), [(0, None, 1), (1, None, 2), (2, None, 2), (1, "auto", 1)])
def test_a_node_of_this_machine_that_starts_too_slowly_is_started_once_more(
    slow: int, address: str | None, starts: int
) -> None:
    ray = SlowRay(slow)
    with pytest.raises(RuntimeError, match="timed out during startup") if slow >= starts else nullcontext():
        _start(ray, address)
    assert (ray.starts, ray.shut) == (starts, starts - 1)
