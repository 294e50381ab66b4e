"""Parts of the checks of ``stetho doctor``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edge_sdk.errors import describe


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    name: str
    status: Literal["ok", "absent", "failed"]  # absent: optional and not there
    detail: str
    fix: str | None = None


def guarded(name: str, check: Callable[[], Check | None]) -> Iterator[Check]:
    """Give the check's result, if it has one; an exception is a failed check."""
    try:
        found = check()
    except Exception as error:
        found = Check(name, "failed", describe(error))
    if found is not None:
        yield found


def version_of(distribution: str) -> str | None:
    """Version of an installed distribution, None where it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
