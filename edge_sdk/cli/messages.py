"""What the commands write beside their results: errors, warnings and notes as one line each, JSON lines."""

from __future__ import annotations

import logging
import os
import select
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from edge_sdk.cli.ending import Stopped
from edge_sdk.errors import describe
from edge_sdk.json_lines import json_line

if TYPE_CHECKING:
    from edge_sdk.cli.ending import Ending

_OURS = ("edge_sdk", "export", "firmware_bridge", "benchmarks")
_MOST_DISTINCT = 10_000  # warnings that are remembered so that they appear once


def error_line(message: str) -> None:
    """Write the one line on stderr that goes with exit status 1."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    _stderr_line(f"stetho: error: {_one_line(message)}")


def note_line(message: str) -> None:
    """Write a line on stderr for a person, beside the results."""
    _stderr_line(f"stetho: {_one_line(message)}")


def emit_json(record: Mapping[str, Any]) -> None:
    """Write one object as one line on stdout, at once."""
    sys.stdout.write(json_line(record, ascii_only=not is_unicode(sys.stdout.encoding)))
    sys.stdout.flush()


def is_unicode(encoding: str | None) -> bool:
    """Whether a stream of this encoding can print every character."""
    return (encoding or "ascii").lower().replace("-", "").replace("_", "").startswith("utf")


class _WarningLines(logging.Handler):
    """Writes each warning of the library as one line, once; those of other libraries only where they are errors."""

    def __init__(self, *, json: bool) -> None:
        super().__init__(logging.WARNING)
        self._json = json
        self._shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.split(".", 1)[0] in _OURS
        return (ours or record.levelno >= logging.ERROR) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = _one_line(record.getMessage())
        except (TypeError, ValueError):  # another library's mistake
            message = str(record.msg)
        if message in self._shown:
            return
        if len(self._shown) < _MOST_DISTINCT:
            self._shown.add(message)
        if self._json:
            line = json_line({"type": "warning", "message": message}, ascii_only=not is_unicode(sys.stderr.encoding))
            _stderr_line(line.rstrip("\n"))
        elif sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            _stderr_line(f"stetho: \x1b[33mwarning:\x1b[0m {message}")
        else:
            _stderr_line(f"stetho: warning: {message}")


@contextmanager
def guard(*, debug: bool, json: bool = False, ending: Ending | None = None) -> Iterator[None]:
    """Turn exceptions into exit statuses, and what libraries log into lines on stderr.

    Parameters
    ----------
    debug
        Let exceptions pass, with their traceback, and show what libraries log in full.
    json
        Write warnings as JSON records.
    ending
        What stopped the command, if anything did.
    """
    with _logging(debug=debug, json=json), _python_warnings(debug=debug):
        try:
            yield
            sys.stdout.flush()  # now, not after the exit status is known
        except (KeyboardInterrupt, Stopped) as stop:
            _show_stop(str(stop))
            raise SystemExit(ending.status if ending else 130) from None
        except Exception as error:
            if ending is not None and ending.signal is not None:  # a library turned the interrupt into another error
                _show_stop("")
                raise SystemExit(ending.status) from None
            if isinstance(error, BrokenPipeError) and _stdout_is_broken():
                _discard(sys.stdout)
                raise SystemExit(1) from None
            status = _usage_status(error)
            if status is None and debug:
                raise
            text = _usage_text(error) if status is not None else describe(error)
            if _stdout_fails() and isinstance(error, OSError) and error.filename is None:
                text = f"standard output: {error.strerror}"
            error_line(text)
            raise SystemExit(1 if status is None else status) from None


def _show_stop(message: str) -> None:
    _stdout_fails()
    note_line(message or "stopped")


@contextmanager
def _logging(*, debug: bool, json: bool) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    handler: logging.Handler
    if debug:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("stetho: %(name)s: %(message)s"))
        root.setLevel(logging.DEBUG)
    else:
        handler = _WarningLines(json=json)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@contextmanager
def _python_warnings(*, debug: bool) -> Iterator[None]:
    """Hide what dependencies warn their own developers of, unless -W, PYTHONWARNINGS or --debug asks for it."""
    with warnings.catch_warnings():
        if not (debug or sys.warnoptions):
            warnings.simplefilter("ignore")
        yield


def _usage_status(error: Exception) -> int | None:
    """Exit status of an error of the command line itself, whose class typer keeps in a private module."""
    return getattr(error, "exit_code", 2) if hasattr(error, "format_message") else None


def _usage_text(error: Any) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    hint = f" (see '{path} --help')" if path else ""
    return f"{error.format_message()}{hint}"


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _stderr_line(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    except (OSError, ValueError):  # nobody reads it: no reason to fail
        _discard(sys.stderr)


def _stdout_is_broken() -> bool:
    try:
        number = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, ValueError, AttributeError):  # no descriptor, or Windows
        return True
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def _stdout_fails() -> bool:
    """Whether what was printed cannot be written; it is then discarded, so that interpreter exit does not fail too."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard(sys.stdout)
        return True
    return False


def _discard(stream: TextIO) -> None:
    """Let a stream write nothing more: its reader has gone, or the disk is full."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
