"""The audio messages of a stream: its header, PCM formats, numbers of frames."""

from __future__ import annotations

import json
import struct
import time
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, field

from edge_sdk.events import AudioBlock
from edge_sdk.server.settings import RequestError
from edge_sdk.settings import Settings

_NUMBER = struct.Struct("<Q")
_FULL_SCALE = 32768.0
_LARGEST = 16.0  # of a float sample; beyond are integers in a float's clothes, or garbage


class StreamHeader(Settings, frozen=True):
    """First message of a stream; see the OpenAPI document."""

    title: ClassVar[str] = "header"

    rate: Annotated[int, Meta(ge=1000, le=192_000)] | None = None  # Hz
    format: Literal["s16le", "f32le"] | None = None
    channels: Annotated[int, Meta(ge=1, le=8)] = 1
    channel: Annotated[int, Meta(ge=0)] = 0  # the one that is analysed
    metadata: dict[str, Any] = field(default_factory=dict)
    patient: str | None = None
    first_sample: Annotated[int, Meta(ge=0, le=1 << 62)] = 0
    numbered: bool = False
    record: bool = True
    source: Literal["live"] | None = None
    examination: str | None = None
    point: str | None = None
    until: Literal["content"] | None = None

    def _problem(self) -> str | None:
        if self.source is None and (self.rate is None or self.format is None):
            return "rate and format are needed, for example {'rate': 8000, 'format': 's16le', 'channels': 1}"
        if self.channel >= self.channels:
            return f"channel {self.channel} does not exist among {self.channels}"
        if (self.point is None) != (self.examination is None):
            return "a point belongs to an examination: give both"
        return None


def read_header(text: str) -> StreamHeader:
    """Parse and check a header.

    Raises
    ------
    RequestError
        It is no JSON object, or a field is wrong; the message names it.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RequestError(422, "the first message must be the stream's header, a JSON object")
    found.pop("type", None)
    if isinstance(found.get("rate"), float) and found["rate"].is_integer():
        found["rate"] = int(found["rate"])
    unknown = sorted(set(found) - set(StreamHeader.__struct_fields__))
    if unknown:
        raise RequestError(422, f"header: unknown keys {', '.join(map(str, unknown))[:100]}")
    try:
        return StreamHeader.from_dict(found)
    except (ValueError, TypeError) as error:
        raise RequestError(422, " ".join(str(error).split())[:300]) from None


class FrameReader:
    """Turns the binary messages of one stream into blocks; samples that are missing between numbers are counted.

    Parameters
    ----------
    header
        Of the stream.
    longest_gap_s
        A number further ahead is refused as garbage.
    """

    def __init__(self, header: StreamHeader, longest_gap_s: float) -> None:
        assert header.rate is not None
        self._header, self._rate = header, header.rate
        self._next = header.first_sample
        self._started = False
        self._longest_gap = round(longest_gap_s * header.rate)
        self._dtype = np.dtype("<i2" if header.format == "s16le" else "<f4")
        self.lost = 0  # samples
        self.repeated = 0  # samples that were received before

    def block(self, message: bytes) -> AudioBlock | None:
        """The block of a message; None where all of its samples were received before, or there are none.

        Raises
        ------
        RequestError
            The message is cut, its samples are no audio, or its number is far off.
        """
        samples = self._samples(message)
        first, lost = self._next, 0
        if self._header.numbered:
            first = _NUMBER.unpack_from(message)[0]
            if not -self._longest_gap <= first - self._next <= self._longest_gap:
                raise RequestError(
                    422, f"frame number {first} is too far from {self._next}, the one that is due; start a new stream"
                )
            if first < self._next:
                received = samples.size
                samples = samples[self._next - first :]
                self.repeated += received - samples.size
                first = self._next
            lost = first - self._next
        if samples.size == 0:
            return None
        self.lost += lost
        self._next = first + samples.size
        return AudioBlock(samples, self._rate, first, time.monotonic_ns(), lost)

    def _samples(self, message: bytes) -> npt.NDArray[np.float32]:
        start = _NUMBER.size if self._header.numbered else 0
        step = self._dtype.itemsize * self._header.channels
        if len(message) < start or (len(message) - start) % step:
            raise RequestError(422, f"a binary message must hold whole samples of {step} bytes, got {len(message)}")
        raw = np.frombuffer(message, self._dtype, offset=start)
        if self._header.channels > 1:
            raw = raw[self._header.channel :: self._header.channels]
        if self._dtype.kind == "i":
            return raw.astype(np.float32) / np.float32(_FULL_SCALE)
        samples = raw.astype(np.float32)
        if not (np.abs(samples) < _LARGEST).all():  # NaN too
            raise RequestError(422, f"a sample is NaN or beyond ±{_LARGEST:g}; send floats in ±1")
        return samples
