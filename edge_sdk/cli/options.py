"""What the sub-commands share: errors as one line, JSON lines, the metadata options."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal, NoReturn

import typer

from edge_sdk.errors import StethoError
from edge_sdk.json_lines import json_line

BundleOption = Annotated[
    str, typer.Option("--bundle", "-b", help="Bundle directory; 'default' is the one in the wheel.", metavar="B")
]
ArtefactOption = Annotated[
    str | None, typer.Option("--artefact", help="Format to run instead of the bundle's default.", metavar="FORMAT")
]
SpeedOption = Annotated[
    float, typer.Option("--speed", min=0.1, max=100.0, help="Of simulated and recorded sound.", metavar="X")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, and nothing else there.")]
SiteOption = Annotated[str | None, typer.Option("--site", help="Where the stethoscope lies (bundle's vocabulary).")]
AgeOption = Annotated[float | None, typer.Option("--age", min=0, max=130, help="Age in years.")]
SexOption = Annotated[str | None, typer.Option("--sex", help="male or female.")]
BmiOption = Annotated[float | None, typer.Option("--bmi", min=5, max=120, help="Body mass index, kg/m².")]
DeviceModelOption = Annotated[str | None, typer.Option("--device-model", help="Stethoscope model.")]
ChannelOption = Annotated[
    str, typer.Option("--channel", help="Channel of a multi-channel source, from 0, or 'mix'.", metavar="N|mix")
]


Metadata = dict[str, "str | float"]


def metadata_of(
    site: str | None, age: float | None, sex: str | None, bmi: float | None, device_model: str | None
) -> Metadata:
    """What is known of the patient and the device; what is not known is absent."""
    given = {"site": site, "age_years": age, "sex": sex, "bmi": bmi, "device": device_model}
    return {name: value for name, value in given.items() if value is not None}


def channel_of(text: str) -> int | Literal["mix"]:
    """``--channel`` as sources take it."""
    if text == "mix":
        return "mix"
    if text.isdecimal():
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a channel number from 0 nor 'mix'", param_hint="--channel")


def latency_of(text: str | None) -> float | Literal["low", "high"] | None:
    """``--latency`` as microphones take it: seconds or a word."""
    if text is None:
        return None
    if text == "low":
        return "low"
    if text == "high":
        return "high"
    with suppress(ValueError):
        if 0 < (milliseconds := float(text)) <= 10_000:
            return milliseconds / 1000
    raise typer.BadParameter(f"{text!r} is neither low, high nor milliseconds", param_hint="--latency")


def take_debug_flag(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand anywhere before ``--``; give back the other arguments and whether it was there."""
    head = list(arguments)
    tail: list[str] = []
    if "--" in head:
        cut = head.index("--")
        head, tail = head[:cut], head[cut:]
    debug = "--debug" in head
    return [a for a in head if a != "--debug"] + tail, debug


def error_line(message: str) -> None:
    """The one line on stderr that goes with exit status 1."""
    sys.stdout.flush()
    text = " ".join(message.split())  # a message of several lines is still one line
    print(f"stetho: error: {text}", file=sys.stderr, flush=True)  # noqa: T201


def note_line(message: str) -> None:
    """A line on stderr for a person who watches a source, beside the results."""
    print(f"stetho: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201


def describe(error: BaseException) -> str:
    """What to tell a person about an exception."""
    if isinstance(error, StethoError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    detail = str(error)
    return f"unexpected {type(error).__name__}{': ' + detail if detail else ''} (--debug shows where)"


@contextmanager
def guard(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into exit statuses: typed or not, an error is one line on stderr and status 1."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="stetho: %(name)s: %(message)s")
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
    # The reader of our output has gone (``stetho screen ... | head``): say nothing, not even at interpreter exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)


def emit_json(record: Mapping[str, Any]) -> None:
    """One object, one line, on stdout, at once."""
    sys.stdout.write(json_line(record))
    sys.stdout.flush()
