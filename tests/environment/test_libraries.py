"""Commands of a device start and end without what libraries do in vain: threads that spin, searches for garbage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_sdk.cli.main import COMMANDS, measures_device, runs_on_device
from edge_sdk.cli.surroundings import BLAS_THREADS, calm_libraries


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"OPENBLAS_NUM_THREADS": "1"}),
        ({"OPENBLAS_NUM_THREADS": ""}, {"OPENBLAS_NUM_THREADS": "1"}),
        ({"OPENBLAS_NUM_THREADS": "3"}, {"OPENBLAS_NUM_THREADS": "3"}),
        ({"GOTO_NUM_THREADS": "2"}, {"GOTO_NUM_THREADS": "2"}),
        ({"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"}),
    ],
)
def test_numpy_gets_one_thread_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], found: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", {**given, "HOME": "/"})
    calm_libraries()
    assert {name: os.environ[name] for name in BLAS_THREADS if name in os.environ} == found


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_numpy_starts_no_threads_that_could_spin() -> None:
    program = (
        "import os\n"
        "from edge_sdk.cli.surroundings import calm_libraries\n"
        "calm_libraries()\n"
        "import numpy as np\n"
        "np.ones((400, 400)) @ np.ones((400, 400))\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_THREADS}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("screen a.wav", True),
        ("--debug listen", True),
        ("serve --help", True),
        ("train recipe.yaml", False),
        ("bench stream", False),
        ("evaluate screen", False),
        ("--help", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_only_commands_of_a_device_are_set_up_so(line: str, expected: bool) -> None:
    assert runs_on_device(line.split()) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bench stream --quick", True),
        ("--debug bench --json stream", True),
        ("bench soak", True),
        ("bench accuracy stream", False),
        ("bench", False),
        ("screen bench stream", False),
        ("", False),
    ],
)
def test_benchmarks_of_a_stream_run_as_on_a_device(line: str, expected: bool) -> None:
    assert measures_device(line.split()) is expected


def test_the_commands_of_a_device_are_in_their_folder() -> None:
    found = {name for name in COMMANDS if runs_on_device([name])}
    assert {"demo", "listen", "screen", "serve"} <= found
    assert found.isdisjoint({"train", "evaluate", "export", "bench"})
