"""What the commands write beside their results: errors as one line, notes, JSON lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from edge_sdk.errors import describe
from edge_sdk.json_lines import json_line


def error_line(message: str) -> None:
    """Write the one line on stderr that goes with exit status 1."""
    sys.stdout.flush()
    text = " ".join(message.split())  # a message of several lines is still one line
    print(f"stetho: error: {text}", file=sys.stderr, flush=True)  # noqa: T201


def note_line(message: str) -> None:
    """Write a line on stderr for a person, beside the results."""
    print(f"stetho: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201


def emit_json(record: Mapping[str, Any]) -> None:
    """Write one object as one line on stdout, at once."""
    sys.stdout.write(json_line(record))
    sys.stdout.flush()


@contextmanager
def guard(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into exit statuses: any error is one line on stderr and status 1."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="stetho: %(name)s: %(message)s")
    logging.getLogger("edge_sdk.runtime.engines.failover").setLevel(logging.WARNING)  # a GPU that fails is no detail
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        _leave_quietly()
    except Exception as error:
        if debug:
            raise
        error_line(describe(error))
        raise SystemExit(1) from None


def _leave_quietly() -> NoReturn:
    # The reader has closed our output (``stetho screen ... | head``): write nothing, not even at interpreter exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)
