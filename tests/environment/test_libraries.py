"""Commands of a device start and end without what libraries do in vain: threads that spin, searches for garbage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


_STREAMS = """
import os
import numpy as np
import edge_sdk
from edge_sdk.sources.phantom import PhantomSource

def ticks():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        found[int(task)] = int(fields[11]) + int(fields[12])
    return found

bundle, rate = edge_sdk.load_bundle("default"), 8000
breaths = np.concatenate([block.samples for block in PhantomSource(duration_s=60.0, sample_rate=rate)])

def play(offline):
    stream = bundle.stream(rate, offline=offline)
    events = [event for at in range(0, breaths.size, rate) for event in stream.accept(breaths[at : at + rate])]
    return events + stream.finish()

play(offline=False)  # makes what all streams share
before = ticks()
classified = [sum(isinstance(event, edge_sdk.CycleResult) for event in play(offline)) for offline in (False, True)]
spent = {task: count - before.get(task, 0) for task, count in ticks().items()}
own = spent.pop(os.getpid())
print(min(classified), len(spent), own, sum(spent.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the CPU time of threads in /proc")
def test_streams_wake_no_thread_of_blas_in_a_program_that_did_not_limit_them() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_THREADS}
    command = [sys.executable, "-c", _STREAMS]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"OPENBLAS_NUM_THREADS": "2"}, check=True
    )
    classified, threads, own, others = map(int, done.stdout.split())
    assert classified >= 5  # long cycles are the largest arrays
    assert threads >= 1  # BLAS has one that it could wake
    assert others <= max(2, own // 20)  # hundredths of a second; woken once, it spins for some


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


_FROZEN = """
import gc
import sys
from edge_sdk.cli.main import run
line = sys.argv[1:]
try:
    {call}
except SystemExit as ended:
    print(ended.code, gc.get_freeze_count(), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("call", "line", "frozen"),
    [
        ("run()", ["screen", "--json"], True),
        ("run(line)", ["screen", "--json"], False),  # a program calls the command: what it has loaded is its own
        ("run()", ["verify", "default"], False),
    ],
)
def test_only_a_process_that_is_a_command_of_a_device_spares_what_it_has_loaded(
    recording: Path, call: str, line: list[str], frozen: bool
) -> None:
    arguments = [*line, str(recording)] if line[0] == "screen" else line
    command = [sys.executable, "-c", _FROZEN.format(call=call), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, count = map(int, done.stderr.split())
    assert code == 0
    assert count > 10_000 if frozen else count == 0  # objects; those of typer and numpy alone are more
