"""Where sound comes from: recordings and a simulated patient, opened by one specification string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edge_sdk.errors import SourceError

if TYPE_CHECKING:
    from edge_sdk.protocols import Source

__all__ = ["open_source"]


def open_source(
    spec: str,
    *,
    paced: bool = False,
    channel: int | Literal["mix"] = 0,
    speed: float = 1.0,
    duration_s: float | None = None,
) -> Source:
    """Open what ``spec`` names.

    Parameters
    ----------
    spec
        ``phantom[:SCENARIO[:SEED]]``, ``mic[:NAME]``, ``serial[:PORT]`` or the path of a recording. A recording that
        happens to be called ``mic`` is ``./mic``.
    paced
        Deliver in real time instead of as fast as possible (recordings and phantom).
    channel
        Of a recording: its number from 0, or ``"mix"``.
    speed
        Of paced delivery; 2 is twice as fast as life.
    duration_s
        Of the phantom, which is endless without it.

    Raises
    ------
    SourceError
        If the specification is empty, or names a scenario, seed or device that does not exist.
    AudioError
        If the recording cannot be read.
    """
    kind, _, rest = spec.partition(":")
    if not spec.strip():
        raise SourceError("no source given; name a recording or phantom[:SCENARIO[:SEED]]")
    if kind == "phantom":
        return _open_phantom(rest, paced=paced, speed=speed, duration_s=duration_s)
    if kind in ("mic", "serial"):
        what = "microphones are" if kind == "mic" else "serial stethoscopes are"
        raise SourceError(f"{what} not in this build yet; use a recording or phantom[:SCENARIO[:SEED]]")
    from edge_sdk.sources.file import FileSource

    return FileSource(spec, paced=paced, channel=channel, speed=speed)


def _open_phantom(rest: str, *, paced: bool, speed: float, duration_s: float | None) -> Source:
    from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

    scenario, _, seed_text = rest.partition(":")
    if seed_text and not (seed_text.isascii() and seed_text.isdigit()):
        raise SourceError(f"phantom seed {seed_text!r} is no whole number; write for example phantom:asthma:1000007")
    seed = int(seed_text) if seed_text else DEFAULT_SEED
    return PhantomSource(scenario or "healthy", seed=seed, duration_s=duration_s, paced=paced, speed=speed)
