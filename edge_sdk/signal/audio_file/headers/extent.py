"""Where the audio of a file really ends: headers of recorders that were stopped, cut files, data behind the audio."""

from __future__ import annotations

from typing import NamedTuple

from edge_sdk.signal.audio_file.byte_streams import FileBytes
from edge_sdk.signal.audio_file.headers.chunks import ChunkStyle, Header
from edge_sdk.signal.audio_file.headers.wave import OPEN_SIZE

_TAIL = 1 << 16  # metadata behind the audio begins within so many bytes of the end
_FILL = 1 << 16  # zeros up to here are the filling of a block, not audio

_NAMES = frozenset(
    name.ljust(4).encode()
    for line in (
        "LIST id3 ID3 bext iXML cue smpl inst plst _PMX afsp JUNK junk PAD FLLR fact PEAK levl axml chna acid strc",
        "labl note ltxt adtl DISP umid cart mext link minf elm1 regn Fake SAUR LGWV ResU AFAn uuid MARK INST COMT NAME",
        "AUTH ANNO (c) APPL MIDI AESD FVER info free edct strg midi ovvw peak kuki pakt chan",
    )
    for name in line.split()
)
"""Names of chunks that are no audio."""

_RECORDINGS = (b"RIFF", b"RF64", b"data", b"SSND", b"FORM")


class Extent(NamedTuple):
    """Bytes of audio in a file, and what is to be said about them."""

    size: int
    note: str | None = None
    cut: bool = False  # audio that the header promises is missing


def find_extent(file: FileBytes, header: Header) -> Extent:
    """The bytes of audio from ``header.data_at`` that a file really holds."""
    available = max(0, file.size - header.data_at)
    stated = header.stated
    if stated is None:
        return Extent(_without_metadata(file, header, available))
    if stated == 0:
        if not available or _rest(file, header, 0) != "audio":
            return Extent(0)
        return _unfinished(file, header, available, "gives 0 bytes of audio")
    if stated > available:
        if OPEN_SIZE <= stated <= 0xFFFFFFFF or stated >= 1 << 62:
            return _unfinished(file, header, available, "gives no real length")
        missing = header.seconds(stated - available)
        promised, found = header.seconds(stated), header.seconds(available)
        return Extent(
            available,
            f"cut: shorter than its header says, {found:.2f} s of {promised:.2f} s are there and "
            f"{missing:.2f} s are missing; copy it again from the original",
            cut=True,
        )
    following = _rest(file, header, stated)
    if following == "audio":
        size = _without_metadata(file, header, available)
        return Extent(
            size,
            f"its header says {header.seconds(stated):.2f} s, but the file holds {header.seconds(size):.2f} s; "
            "all of it is read",
        )
    if following == "recording":
        return Extent(
            stated,
            f"another recording follows the first one of {header.seconds(stated):.2f} s in the same file and is not "
            f"read ({available - stated} bytes); split the file",
            cut=True,
        )
    return Extent(stated)


def _unfinished(file: FileBytes, header: Header, available: int, how: str) -> Extent:
    size = _without_metadata(file, header, available)
    return Extent(size, f"its header was never finished ({how}); all {header.seconds(size):.2f} s of the file are read")


def _rest(file: FileBytes, header: Header, stated: int) -> str:
    """What follows the audio that the header names: ``nothing``, ``metadata``, ``recording`` or ``audio``."""
    at = header.data_at + stated
    rest = file.size - at
    if rest < max(2, header.frame_bytes):
        return "nothing"
    if rest <= _FILL and not file.read_at(at, rest).strip(b"\0"):
        return "nothing"
    if file.read_at(at, 3) in (b"TAG", b"ID3") or file.read_at(at, 8) == b"APETAGEX":
        return "metadata"
    style = header.chunks
    if style is None:
        return "audio"
    for begin in {at + style.padding(stated), at}:
        if (found := _walk(file, style, begin)) is not None:
            return found
        if _name(file.read_at(begin, style.id_bytes)) in _NAMES:  # metadata that is damaged or cut itself
            return "metadata"
    return "audio"


def _walk(file: FileBytes, style: ChunkStyle, at: int) -> str | None:
    """Whether chunks fill the file from ``at`` to its end exactly, and of what kind; None: they do not."""
    while at + style.header_bytes <= file.size:
        head = file.read_at(at, style.header_bytes)
        name = _name(head)
        if not all(32 <= byte < 127 for byte in name):
            return None
        if name in _RECORDINGS:
            return "recording"
        size = style.size(head)
        at += style.header_bytes + size + style.padding(size)
    rest = file.size - at
    if -style.multiple <= rest <= 0 or (0 < rest < 8 and not file.read_at(at, rest).strip(b"\0")):
        return "metadata"
    return None


def _name(raw: bytes) -> bytes:
    return raw[:4]


def _without_metadata(file: FileBytes, header: Header, available: int) -> int:
    """``available`` less the metadata that fills the end of the file."""
    style = header.chunks
    if style is None or not available:
        return available
    begin = max(header.data_at, file.size - _TAIL)
    tail = file.read_at(begin, _TAIL)
    starts = sorted({at for name in _NAMES for at in _positions(tail, name)})
    for at in starts:
        if _walk(file, style, begin + at) == "metadata":
            return begin + at - header.data_at
    return available


def _positions(tail: bytes, name: bytes) -> list[int]:
    found, at = [], tail.find(name)
    while at >= 0:
        found.append(at)
        at = tail.find(name, at + 1)
    return found


def is_metadata(head: bytes) -> bool:
    """Whether bytes behind the audio begin a chunk, perhaps after a byte of padding."""
    return any(head[at : at + 4] in _NAMES for at in (0, 1))


def is_recording(head: bytes) -> bool:
    """Whether bytes behind the audio begin more audio with a header of its own, perhaps after a byte of padding."""
    return any(head[at : at + 4] in _RECORDINGS for at in (0, 1))
