"""Logs of a run's curves: CSV, TensorBoard where it is installed, MLflow on request."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from edge_sdk.errors import MissingDependencyError, RecipeError
from edge_sdk.training.loop.fit import EpochReport
from edge_sdk.training.run_folder import LOG_FILE, write_text

LOGGERS = ("csv", "tensorboard", "mlflow")


class RunLog(Protocol):
    """A log with one row for each epoch."""

    def epoch(self, report: EpochReport) -> None:
        """Write one finished epoch."""
        ...

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics and close."""
        ...


class CsvLog:
    """``log.csv``: epoch, loss, learning rate, validation, CPU seconds; a resumed run continues the file."""

    _COLUMNS = ("epoch", "loss", "learning_rate", "validation", "cpu_s")

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG_FILE
        self._rows: list[list[str]] = []
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = [row for row in csv.reader(file) if row and row[0].isdecimal()]

    def epoch(self, report: EpochReport) -> None:
        """Write the file again with this epoch; later rows of an interrupted run are replaced."""
        validation = "" if report.validation is None else f"{report.validation:.6g}"
        self._rows = [row for row in self._rows if int(row[0]) < report.epoch]  # of epochs that are trained anew
        numbers = (report.loss, report.learning_rate)
        self._rows.append(
            [str(report.epoch), *(f"{value:.6g}" for value in numbers), validation, f"{report.cpu_s:.2f}"]
        )
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self._COLUMNS, *self._rows])
        write_text(self._path, text.getvalue(), newline="")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Nothing to do: the metrics are in ``metrics.json``."""


class TensorBoardLog:
    """Event files in ``tensorboard/``; needs the tensorboard package."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def epoch(self, report: EpochReport) -> None:
        """Write loss, learning rate and validation."""
        self._writer.add_scalar("loss", report.loss, report.epoch)
        self._writer.add_scalar("learning_rate", report.learning_rate, report.epoch)
        if report.validation is not None:
            self._writer.add_scalar("validation", report.validation, report.epoch)
        self._writer.flush()

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write every number of the metrics below ``final/``."""
        for name, value in numbers(metrics).items():
            self._writer.add_scalar(f"final/{name}", value)
        self._writer.close()


class MlflowLog:
    """A run of the MLflow experiment ``stetho``, on the server of MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment("stetho")
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params({name: str(value)[:500] for name, value in parameters.items()})

    def epoch(self, report: EpochReport) -> None:
        """Log loss, learning rate and validation."""
        values = {"loss": report.loss, "learning_rate": report.learning_rate}
        if report.validation is not None:
            values["validation"] = report.validation
        self._mlflow.log_metrics(values, step=report.epoch)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Log every number of the metrics and end the MLflow run."""
        self._mlflow.log_metrics(numbers(metrics))
        self._mlflow.end_run()


class RunLogs:
    """All logs of a run; ``epoch`` is the ``on_epoch`` callback of the loop.

    Parameters
    ----------
    folder : Path
        Of the run.
    names : sequence of str, optional
        Among ``LOGGERS``; None: csv, and tensorboard where it is installed.
    parameters : mapping
        Flat settings, for logs that keep them.

    Raises
    ------
    RecipeError
        No such log.
    MissingDependencyError
        The package of a requested log is absent.
    """

    def __init__(self, folder: Path, names: Sequence[str] | None, parameters: Mapping[str, Any]) -> None:
        self._makers: list[Callable[[], RunLog]] = []
        self._logs: list[RunLog] | None = None
        for name in names if names is not None else available():
            if name not in LOGGERS:
                raise RecipeError(f"log {name!r} does not exist; choose among {', '.join(LOGGERS)}")
            if name != "csv" and find_spec(name) is None:
                raise MissingDependencyError(
                    f"log {name} needs {name}; install with: pip install 'stethoscope-edge-sdk[{name}]'"
                )
            self._makers.append(_maker(name, folder, parameters))

    def epoch(self, report: EpochReport) -> None:
        """Write one finished epoch to all logs."""
        for log in self._opened():
            log.epoch(report)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the final metrics to all logs and close them."""
        for log in self._opened():
            log.finish(metrics)

    def _opened(self) -> list[RunLog]:
        if self._logs is None:  # a run that fails before its first epoch leaves nothing behind
            self._logs = [make() for make in self._makers]
        return self._logs


def available() -> list[str]:
    """The logs that are written by default."""
    return ["csv", *(["tensorboard"] if find_spec("tensorboard") is not None else [])]


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers among ``values``."""
    kinds = (int, float)
    return {k: float(v) for k, v in values.items() if isinstance(v, kinds) and not isinstance(v, bool)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted paths."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _maker(name: str, folder: Path, parameters: Mapping[str, Any]) -> Callable[[], RunLog]:
    if name == "tensorboard":
        return lambda: TensorBoardLog(folder)
    if name == "mlflow":
        return lambda: MlflowLog(folder, parameters)
    return lambda: CsvLog(folder)
