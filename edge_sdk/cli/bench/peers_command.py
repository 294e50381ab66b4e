"""``stetho bench peers``: our parts beside well-known libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.bench.options import BundleArgument, OutOption, QuickOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import BundleOption, JsonOption

_COLUMNS = (
    "cpu_ratio", "cpu_ratio_low", "cpu_ratio_high", "wall_ratio", "energy_ratio", "p50_ms", "cpu_s_per_hour", "joules",
    "f1", "n",
)  # fmt: skip


def peers_command(
    bundle_argument: BundleArgument = None,
    bundle: BundleOption = "default",
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="front-end, inference, stream, windows or events; may be repeated."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=8, help="Seconds of audio in one unit of work.")] = 60.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of all contestants in turn.")] = 30,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of the peers' environments; the user's cache where absent.")
    ] = None,
    quick: QuickOption = False,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Compare ours with kaldi-native-fbank, torchaudio, librosa, torch, ONNX Runtime, silero-vad, BirdNET and others.

    windows: BirdNET and YAMNet label window after window of the recording that we screen. All run in the same rounds.
    Each peer has an environment of its own, made at the first run; --quick makes none.
    """
    from benchmarks.peers.contests import CONTESTS
    from benchmarks.peers.run import PeerOptions, run_peers

    wrong = sorted(set(only or []) - set(CONTESTS))
    if wrong:
        raise typer.BadParameter(f"no contest {', '.join(wrong)}; there are {', '.join(CONTESTS)}", param_hint="--only")
    options = PeerOptions(
        bundle=bundle_argument or bundle,
        seconds=8.0 if quick else seconds,
        rounds=3 if quick else rounds,
        warm_up=1 if quick else 2,
        quick=quick,
        cache=cache,
        only=tuple(only or ()),
    )
    run_and_show(lambda report: run_peers(options, report), "Peers (ratio: ours by theirs)", _COLUMNS, out, json_)
