"""Audio sources: microphones, serial stethoscopes, recordings and a simulated patient, each opened by one string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edge_sdk.errors import SourceError
from edge_sdk.numbers import whole_number

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
    device_rate: int | None = None,
    baud: int | None = None,
    block_ms: float | None = None,
    latency: float | Literal["low", "high"] | None = None,
) -> Source:
    """Open the source that ``spec`` names.

    Parameters
    ----------
    spec
        ``phantom[:SCENARIO[:SEED]]``, ``mic[:NAME]``, ``serial[:PORT]``, ``serial:SN=NUMBER`` for the stethoscope with
        this serial number at whatever port (``@BAUD`` may follow both), or the path of a recording. Write ``./mic`` for
        a recording with the name ``mic``.
    paced
        Deliver in real time instead of as fast as possible (recordings and phantom).
    channel
        Number from 0, or ``"mix"`` (recordings and microphones) for the mean of all channels.
    speed
        Factor of real time for paced delivery; 2 is twice as fast.
    duration_s
        Seconds of a phantom; None is endless.
    device_rate
        Hz to request from a microphone or serial stethoscope.
    baud
        Baud rate of a serial stethoscope with a UART; None is 921600. USB ignores it.
    block_ms
        Milliseconds per block of a microphone; 0: the audio system decides.
    latency
        Seconds that the audio system may buffer for a microphone, or its own ``"low"`` (default) or ``"high"``.

    Raises
    ------
    SourceError
        If ``spec`` is empty, its scenario, seed or device does not exist or cannot be opened, or an option does not
        apply to this kind of source.
    MissingDependencyError
        If a microphone needs a library that is not installed.
    AudioError
        If the recording cannot be read.
    """
    kind, _, rest = spec.partition(":")
    if not spec.strip():
        raise SourceError("no source given; name a recording or phantom[:SCENARIO[:SEED]]")
    if device_rate is not None and kind not in ("mic", "serial"):
        raise SourceError(f"a device rate is for mic and serial; {spec} has its own")
    if baud is not None and kind != "serial":
        raise SourceError(f"a baud rate is for serial, not for {spec}")
    if (block_ms is not None or latency is not None) and kind != "mic":
        raise SourceError(f"block length and latency are for microphones, not for {spec}")
    if kind == "phantom":
        return _open_phantom(rest, paced=paced, speed=speed, duration_s=duration_s)
    if kind == "mic":
        from edge_sdk.sources.microphone.source import BLOCK_S, MicrophoneSource

        return MicrophoneSource(
            rest or None,
            sample_rate=device_rate,
            block_s=BLOCK_S if block_ms is None else block_ms / 1000,
            latency="low" if latency is None else latency,
            channel=channel,
        )
    if kind == "serial":
        from edge_sdk.sources.serial import SerialSource

        return SerialSource(rest or None, sample_rate=device_rate, channel=channel, baud=baud)
    from edge_sdk.sources.file import FileSource

    return FileSource(spec, paced=paced, channel=channel, speed=speed)


def _open_phantom(rest: str, *, paced: bool, speed: float, duration_s: float | None) -> Source:
    from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

    scenario, _, seed_text = rest.partition(":")
    seed = whole_number(seed_text) if seed_text else DEFAULT_SEED
    if seed is None:
        raise SourceError(
            f"phantom seed {seed_text!r} is no whole number of at most 18 digits; "
            "write for example phantom:asthma:1000007"
        )
    return PhantomSource(scenario or "healthy", seed=seed, duration_s=duration_s, paced=paced, speed=speed)
