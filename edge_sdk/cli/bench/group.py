"""``stetho bench``: timings and scores of this machine, as a table or as JSON lines."""

from __future__ import annotations

import typer

from edge_sdk.cli.bench.accuracy_command import accuracy_command
from edge_sdk.cli.bench.faults_command import faults_command
from edge_sdk.cli.bench.gpu_command import gpu_command
from edge_sdk.cli.bench.latency_command import latency_command
from edge_sdk.cli.bench.peers_command import peers_command
from edge_sdk.cli.bench.results_commands import compare_command, ratios_command, report_command
from edge_sdk.cli.bench.soak_command import soak_command
from edge_sdk.cli.bench.stream_command import stream_command

app = typer.Typer(help="Benchmark models and the whole pipeline.", no_args_is_help=True, add_completion=False)
app.command("latency")(latency_command)
app.command("accuracy")(accuracy_command)
app.command("stream")(stream_command)
app.command("soak")(soak_command)
app.command("faults")(faults_command)
app.command("gpu")(gpu_command)
app.command("peers")(peers_command)
app.command("report")(report_command)
app.command("compare")(compare_command)
app.command("ratios")(ratios_command)
