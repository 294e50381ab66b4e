"""Progress on stderr: a bar where a person watches, nothing elsewhere. Library code only takes the callbacks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Report(Protocol):
    """Progress callback: ``report(step)``, or ``report(what, done, total)`` where the work can be counted."""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Show the present step and how much of it is done."""


def is_watched(*, quiet: bool = False) -> bool:
    """Return whether a person sees stderr and progress is wanted."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def progress_bar(title: str = "", *, quiet: bool = False) -> Iterator[Report]:
    """Show a bar on stderr where a person watches, and give its callback.

    Parameters
    ----------
    title
        Shown until the first call of the callback.
    quiet
        Never show a bar.
    """
    if not is_watched(quiet=quiet):
        yield _no_report
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
    )
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # rich would print on stderr what belongs in a file or a pipe
    )
    with bar:
        task = bar.add_task(title, total=None, count="")

        def report(what: str, done: int | None = None, total: int | None = None) -> None:
            count = "" if done is None or total is None else f"{done}/{total}"
            bar.tasks[0].total = total  # None too: back to a bar without an end
            bar.update(task, description=what, completed=done or 0, count=count)

        yield report


def tracked(items: Iterable[Item], total: int, what: str, *, quiet: bool = False) -> Iterator[Item]:
    """Pass ``items`` on, counted by a bar as they come."""
    with progress_bar(what, quiet=quiet) as report:
        report(what, 0, total)
        for done, item in enumerate(items, 1):
            report(what, done, total)
            yield item


def _no_report(what: str, done: int | None = None, total: int | None = None) -> None:
    """Take a report and show nothing."""
