"""MPEG audio (MP3): its frames, how long they really are, and a clean copy of the stream for the decoder.

libmpg123, inside libsndfile, estimates the length of a variable bit rate from the first frame, stops where a header was
not rewritten, and complains on stderr. Here every frame header is read, and the decoder gets only whole frames behind a
Xing header that is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_sdk.signal.audio_file.byte_streams import FileBytes, Part
from edge_sdk.signal.audio_file.compressed.tags import tag_bytes
from edge_sdk.signal.audio_file.headers.chunks import HeaderError

_KEY = 0xFFFE0C00  # sync, version, layer and rate: the same in all frames of a stream
_WINDOW = 1 << 18
_SEARCH = 1 << 20  # bytes that may stand before the first frame, or between two
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBPS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG 1, layer bits) → bit rates of the indices from 1."""

_LAME_BYTES = 36
_DELAY_AT = 21  # of the LAME extension: 12 bits of encoder delay, 12 bits of padding


@dataclass
class MpegScan:
    """A stream of MPEG frames."""

    rate: int  # Hz
    channels: int
    frames: int  # MPEG frames of audio
    frame_samples: int
    parts: list[Part] = field(default_factory=list)  # of a clean stream
    notes: list[str] = field(default_factory=list)
    cut: bool = False


def scan_mpeg(file: FileBytes, begin: int, end: int) -> MpegScan:
    """Read all frame headers of ``file`` between two positions.

    Raises
    ------
    HeaderError
        There are no MPEG frames, or they change their format.
    """
    reader = _Frames(file, end)
    start = begin + tag_bytes(file, begin)
    first = reader.find(start, None)
    if first is None:
        raise HeaderError("no MPEG frames in it")
    head = reader.word(first)
    scan = MpegScan(_rate(head), _channels(head), 0, _frame_samples(head))
    if file.read_at(start, first - start).strip(b"\0"):
        scan.notes.append(f"cut: it begins within a frame, {first - start} bytes are no audio")
        scan.cut = True
    info = _Information.read(file, first, head)
    stretches, junk, tail = _walk(reader, first, head)
    if info is not None and stretches:  # the header frame holds no audio
        stretches[0] = (first + _frame_bytes(head), stretches[0][1])
    scan.frames = reader.count - (info is not None)
    if scan.frames < 1:
        raise HeaderError("no MPEG frames in it")
    layer3 = head >> 17 & 3 == 1
    if not layer3 and reader.varied:
        raise HeaderError("MPEG layer I or II of variable bit rate, whose length no decoder here knows")
    cut = _judge(scan, info, junk, tail)
    size = sum(stop - start for start, stop in stretches)
    header = [_xing(head, scan.frames, size, info, trimmed=not cut)] if layer3 else []
    scan.parts = [*header, *stretches]
    return scan


def _judge(scan: MpegScan, info: _Information | None, junk: int, tail: int) -> bool:
    """Add what is to be said; return whether the end of the stream is not where its header puts it."""
    seconds = scan.frame_samples / scan.rate
    promised = info.frames if info is not None else None
    if junk:
        scan.notes.append(f"damaged: {junk} bytes between its MPEG frames are no audio of {scan.rate} Hz, passed over")
        scan.cut = True
    if promised is not None and scan.frames < promised:
        scan.notes.append(
            f"cut: {scan.frames * seconds:.2f} s of {promised * seconds:.2f} s are there and "
            f"{(promised - scan.frames) * seconds:.2f} s are missing; copy it again from the original"
        )
        scan.cut = True
    elif tail and (promised is None or scan.frames < promised):
        scan.notes.append(
            f"cut: it ends within a frame after {scan.frames * seconds:.2f} s; its header does not give its length, so "
            "how much is missing is not known; copy it again from the original"
        )
        scan.cut = True
    if promised is not None and scan.frames > promised:
        scan.notes.append(
            f"its header says {promised * seconds:.2f} s, but the file holds {scan.frames * seconds:.2f} s; all of it "
            "is read"
        )
    return promised is not None and promised != scan.frames


class _Frames:
    """Frame headers of a file, read through a window."""

    def __init__(self, file: FileBytes, end: int) -> None:
        self.file, self.end = file, end
        self.count = 0
        self.varied = False  # bit rates differ
        self._begin, self._held = 0, b""
        self._sizes: dict[int, int] = {}

    def word(self, at: int) -> int:
        """The four bytes at a position; 0 beyond the end."""
        offset = at - self._begin
        if offset < 0 or offset + 4 > len(self._held):
            if at + 4 > self.end:
                return 0
            self._begin, self._held = at, self.file.read_at(at, min(_WINDOW, self.end - at))
            offset = 0
        return int.from_bytes(self._held[offset : offset + 4], "big")

    def size(self, head: int) -> int:
        """Bytes of the frame with this header; 0: it is none."""
        known = self._sizes.get(head >> 9)
        if known is None:
            known = self._sizes[head >> 9] = _frame_bytes(head)
        return known

    def find(self, at: int, key: int | None) -> int | None:
        """The next position from which three frames follow each other, or two to the end."""
        last = min(self.end, at + _SEARCH)
        while at < last:
            content = self.file.read_at(at, min(_WINDOW, last - at))
            offset = content.find(b"\xff")
            while offset >= 0:
                if self._begins(at + offset, key):
                    return at + offset
                offset = content.find(b"\xff", offset + 1)
            at += max(1, len(content))
        return None

    def _begins(self, at: int, key: int | None) -> bool:
        head = self.word(at)
        key = head & _KEY if key is None else key
        for _ in range(3):
            if head & _KEY != key or not self.size(head):
                return False
            at += self.size(head)
            if at + 4 > self.end:
                return True
            head = self.word(at)
        return True


def _walk(frames: _Frames, at: int, head: int) -> tuple[list[tuple[int, int]], int, int]:
    """Stretches of whole frames; bytes between them that are none; bytes of a frame that the end cuts off."""
    key, mono, bits = head & _KEY, _channels(head), head >> 12 & 15
    stretches: list[tuple[int, int]] = []
    begin, junk, end = at, 0, frames.end
    while at + 4 <= end:
        head = frames.word(at)
        size = frames.size(head) if head & _KEY == key else 0
        if size and at + size > end:
            break
        if size:
            if _channels(head) != mono:
                seconds = frames.count * _frame_samples(head) / _rate(head)
                raise HeaderError(f"an MPEG stream that changes between mono and stereo after {seconds:.2f} s")
            frames.varied |= head >> 12 & 15 != bits
            frames.count += 1
            at += size
            continue
        if at > begin:
            stretches.append((begin, at))
        found = frames.find(at + tag_bytes(frames.file, at), key)
        tags = _is_tag(frames.file, at)
        if found is None:
            return stretches, junk + (0 if tags or end - at < 4 else end - at), 0
        junk += 0 if tags else found - at
        begin = at = found
    if at > begin:
        stretches.append((begin, at))
    return stretches, junk, end - at if at < end and frames.word(at) & _KEY == key else 0


def _is_tag(file: FileBytes, at: int) -> bool:
    found = file.read_at(at, 11)
    return found[:3] in (b"TAG", b"ID3") or found[:8] == b"APETAGEX" or found == b"LYRICSBEGIN"


@dataclass(frozen=True)
class _Information:
    """The header frame of an encoder."""

    frames: int | None
    lame: bytes  # the extension with the encoder's delay; may be empty

    @staticmethod
    def read(file: FileBytes, at: int, head: int) -> _Information | None:
        content = file.read_at(at, _frame_bytes(head))
        begin = 4 + _side_bytes(head)
        if content[begin : begin + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(content[begin + 4 : begin + 8], "big")
            frames = int.from_bytes(content[begin + 8 : begin + 12], "big") if flags & 1 else 0
            lame_at = begin + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
            lame = content[lame_at : lame_at + _LAME_BYTES]
            return _Information(frames or None, lame if len(lame) == _LAME_BYTES and lame[0] else b"")
        if content[36:40] == b"VBRI":
            return _Information(int.from_bytes(content[50:54], "big") or None, b"")
        return None


def _xing(head: int, frames: int, size: int, info: _Information | None, *, trimmed: bool) -> bytes:
    """A header frame with the true number of frames; ``trimmed``: the encoder's padding is at the end."""
    side = _side_bytes(head)
    for index in range(1, 15):
        own = head & ~0xF200 & 0xFFFFFFFF | index << 12 | 0x10000  # no padding byte, no checksum
        if _frame_bytes(own) >= 4 + side + 16 + _LAME_BYTES:
            break
    lame = bytearray(info.lame if info is not None else b"")
    if lame and not trimmed:  # the end is another one: nothing is cut from it
        lame[_DELAY_AT + 1] &= 0xF0
        lame[_DELAY_AT + 2] = 0
    length = _frame_bytes(own)
    content = own.to_bytes(4, "big") + bytes(side) + b"Xing" + (3).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (content + (size + length).to_bytes(4, "big") + bytes(lame)).ljust(length, b"\0")


def _frame_bytes(head: int) -> int:
    version, layer, index, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 0 or not 0 < index < 15 or rate == 3:
        return 0
    bits = 1000 * _KBPS[version == 3, layer][index - 1]
    padding = head >> 9 & 1
    if layer == 3:
        return (12 * bits // _RATES[version][rate] + padding) * 4
    return (144 if version == 3 or layer == 2 else 72) * bits // _RATES[version][rate] + padding


def _rate(head: int) -> int:
    return _RATES[head >> 19 & 3][head >> 10 & 3]


def _channels(head: int) -> int:
    return 1 if head >> 6 & 3 == 3 else 2


def _frame_samples(head: int) -> int:
    layer = head >> 17 & 3
    if layer == 3:
        return 384
    return 1152 if layer == 2 or head >> 19 & 3 == 3 else 576


def _side_bytes(head: int) -> int:
    if head >> 19 & 3 == 3:
        return 17 if _channels(head) == 1 else 32
    return 9 if _channels(head) == 1 else 17
