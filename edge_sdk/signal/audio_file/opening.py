"""Opens a recording: finds out what it is, where its audio is, and which decoder reads it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.byte_streams import FileBytes, PipeBytes, SplicedFile
from edge_sdk.signal.audio_file.headers.chunks import Header, HeaderError
from edge_sdk.signal.audio_file.headers.extent import find_extent
from edge_sdk.signal.audio_file.headers.others import read_aiff, read_au, read_caf
from edge_sdk.signal.audio_file.headers.wave import read_wave, read_wave64
from edge_sdk.signal.audio_file.kinds import HEAD_BYTES, Kind, kind_of, unreadable, way_out
from edge_sdk.signal.audio_file.levels import float_scale
from edge_sdk.signal.audio_file.pcm import decode, misread
from edge_sdk.signal.audio_file.plain import PlainDecoder, PlainPipe
from edge_sdk.signal.audio_file.reader import STDIN, AudioReader, checked_rate

_HEADERS = {"wave": read_wave, "wave64": read_wave64, "aiff": read_aiff, "au": read_au, "caf": read_caf}
STANDARD_INPUT = "standard input"
_OGG_SHORT_S = 0.05
_PEAK_BYTES = 1 << 20
_PEEK_S = 0.25  # of a pipe, before its first sample is given: what decides on the units of floats
_PROBES = 4  # places of a file whose byte order is checked
_PROBE_FRAMES = 1024


def open_audio(path: str | os.PathLike[str]) -> AudioReader:
    """Open a recording by what it holds, whatever its name says.

    Parameters
    ----------
    path
        A file, a FIFO, or ``-`` for standard input. Plain audio (WAV, AIFF, AU, CAF) and FLAC are read from a pipe as
        they arrive, other formats once it has ended.

    Returns
    -------
    AudioReader
        With notes on what is wrong already.

    Raises
    ------
    AudioError
        No file, a folder, an empty file, no audio, a format that is not decoded here, a header that cannot be right,
        samples in another byte order than the header says.
    """
    text = os.fspath(path)
    name = STANDARD_INPUT if text == STDIN else text
    stream = _standard_input() if text == STDIN else _stream(name)
    try:
        try:
            return _open(name, stream)
        except HeaderError as error:
            raise AudioError(f"{name} is not a readable recording ({error}); use wav or flac") from error
    except BaseException:
        stream.close()
        raise


def _standard_input() -> FileBytes | PipeBytes:
    if sys.stdin is not None and sys.stdin.isatty():
        raise AudioError("standard input is a terminal; pipe a recording into it, or name a file")
    try:
        return _of_descriptor(os.dup(0), STANDARD_INPUT)
    except OSError as error:
        raise AudioError("standard input is closed; pipe a recording into it, or name a file") from error


def _stream(name: str) -> FileBytes | PipeBytes:
    try:
        kind = Path(name).stat().st_mode
        if stat.S_ISDIR(kind):
            raise AudioError(f"{name} is a folder; name a recording inside it, or use 'stetho screen {name}'")
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            raise AudioError(f"{name} is not a regular file; name a wav or flac recording")
        return _of_descriptor(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), name)
    except FileNotFoundError as error:
        raise AudioError(f"no such file: {name}; check the name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot read {name}: {reason}; check its permissions and name") from error


def _of_descriptor(descriptor: int, name: str) -> FileBytes | PipeBytes:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return FileBytes(os.fdopen(descriptor, "rb", buffering=1 << 16))
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return PipeBytes(descriptor, name)
    os.close(descriptor)
    if name == STANDARD_INPUT:
        raise AudioError("standard input is empty; pipe a recording into it, or name a file")
    raise AudioError(f"{name} is not a regular file; name a wav or flac recording")


def _open(name: str, stream: FileBytes | PipeBytes) -> AudioReader:
    head = stream.peek(HEAD_BYTES)
    if not head:
        raise AudioError(f"{name} is empty (0 bytes); record or copy it again")
    foreign = unreadable(head)
    if foreign is not None:
        raise AudioError(way_out(name, foreign))
    kind = kind_of(head)
    if kind in _HEADERS:
        if isinstance(stream, PipeBytes):
            stream.mark()
        header = _HEADERS[kind](stream)
        checked_rate(name, header.rate, header.bytes_per_second, header.frame_bytes)
        if header.coding is not None:
            return _plain(name, stream, header) if isinstance(stream, FileBytes) else _piped(name, stream, header)
        if isinstance(stream, FileBytes):
            return _compressed(name, stream, header)
    if isinstance(stream, PipeBytes):
        from edge_sdk.signal.audio_file.compressed.piped import flac_pipe, spooled

        if kind == "flac":
            return flac_pipe(name, stream)
        stream.rewind()
        stream = spooled(stream, name)
        return _open(name, stream)
    return _decoded(name, stream, kind)


# -- plain samples -----------------------------------------------------------------------------------------------------


def _plain(name: str, file: FileBytes, header: Header) -> AudioReader:
    coding = header.coding
    assert coding is not None
    extent = find_extent(file, header)
    if extent.size < header.frame_bytes:
        raise AudioError(f"{name} holds no samples; record it again")
    notes = [] if extent.note is None else [extent.note]
    scale = 1.0
    if coding.is_float:
        scale, note = float_scale(_stretches(file, header, extent.size))
        notes += [] if note is None else [note]
    else:
        _check_byte_order(name, file, header, extent.size)
    file.seek(header.data_at)
    decoder = PlainDecoder(file, header, extent.size)
    return AudioReader(
        name, header.rate, header.channels, decoder, notes=notes, cut=extent.cut, scale=scale, owned=[file]
    )


def _stretches(file: FileBytes, header: Header, size: int) -> Iterator[npt.NDArray[np.float32]]:
    assert header.coding is not None
    step = max(1, _PEAK_BYTES // header.frame_bytes) * header.frame_bytes
    for begin in range(0, size, step):
        yield decode(file.read_at(header.data_at + begin, min(step, size - begin)), header.coding, header.channels)


def _check_byte_order(name: str, file: FileBytes, header: Header, size: int) -> None:
    """Check some places of the file: a stream may lose a byte on its way."""
    assert header.coding is not None
    frames = size // header.frame_bytes
    for place in range(_PROBES):
        first = max(0, frames - _PROBE_FRAMES) * place // max(1, _PROBES - 1)
        raw = file.read_at(header.data_at + first * header.frame_bytes, _PROBE_FRAMES * header.frame_bytes)
        _require_order(name, raw, header, first)
        if frames <= _PROBE_FRAMES:
            break


def _require_order(name: str, raw: bytes, header: Header, first: int) -> None:
    assert header.coding is not None
    found = misread(raw, header.coding, header.channels)
    if found is not None:
        raise AudioError(
            f"{name} holds {found} from {first / header.rate:.2f} s on: what they give is loud noise, no audio; write "
            "it again with the right sample format"
        )


def _piped(name: str, stream: PipeBytes, header: Header) -> AudioReader:
    coding = header.coding
    assert coding is not None
    stream.forget()
    raw = stream.peek(max(1, round(_PEEK_S * header.rate)) * header.frame_bytes)
    if not raw:
        raise AudioError(f"{name} holds no samples; record it again")
    notes: list[str] = []
    scale = 1.0
    if coding.is_float:
        found = decode(raw, coding, header.channels)
        scale, note = float_scale([found])
        notes += [] if note is None else [note]
    else:
        _require_order(name, raw, header, 0)
    decoder = PlainPipe(stream, header)
    return AudioReader(
        name,
        header.rate,
        header.channels,
        decoder,
        notes=notes,
        scale=scale,
        clip=coding.is_float,
        owned=[stream],
    )


# -- what libsndfile decodes -------------------------------------------------------------------------------------------


def _compressed(name: str, file: FileBytes, header: Header) -> AudioReader:
    """A chunked container with compressed audio: ADPCM, GSM, MPEG and others."""
    extent = find_extent(file, header)
    end = header.data_at + extent.size
    notes = [] if extent.note is None else [extent.note]
    if header.mpeg:
        return _mpeg(name, file, header.data_at, end, notes=notes, cut=extent.cut)
    if extent.size != header.stated and not extent.cut:
        raise HeaderError(f"{extent.note or 'unfinished header'}, but not of compressed audio")
    return _library(name, file, file.file.fileno(), notes=notes, cut=extent.cut)


def _decoded(name: str, file: FileBytes, kind: Kind) -> AudioReader:
    if kind == "mpeg":
        from edge_sdk.signal.audio_file.compressed.tags import tag_bytes

        begin = tag_bytes(file, 0)
        if file.read_at(begin, 4) == b"fLaC":
            return _flac(name, file, begin)
        return _mpeg(name, file, 0, file.size)
    if kind == "flac":
        return _flac(name, file, 0)
    if kind == "ogg":
        return _ogg(name, file)
    try:
        return _library(name, file, file.file.fileno())
    except HeaderError:
        with suppress(HeaderError):  # an MPEG stream may begin within a frame
            return _mpeg(name, file, 0, file.size)
        raise


def _mpeg(
    name: str, file: FileBytes, begin: int, end: int, *, notes: list[str] | None = None, cut: bool = False
) -> AudioReader:
    from edge_sdk.signal.audio_file.compressed.mpeg import scan_mpeg

    scan = scan_mpeg(file, begin, end)
    stream = SplicedFile(file.file, scan.parts)
    return _library(name, file, stream, notes=[*(notes or []), *scan.notes], cut=cut or scan.cut, lenient=True)


def _flac(name: str, file: FileBytes, begin: int) -> AudioReader:
    from edge_sdk.signal.audio_file.compressed.flac import scan_flac

    scan = scan_flac(file, begin)
    if scan is None:
        return _library(name, file, file.file.fileno())
    checked_rate(name, scan.rate)
    notes: list[str] = []
    stream: Any = file.file.fileno()
    if begin or (scan.found is not None and scan.stated < scan.found):
        samples = scan.found or scan.stated
        stream = SplicedFile(file.file, scan.with_length(file.size, samples))
        if scan.stated < samples:
            says = f"says {scan.stated / scan.rate:.2f} s" if scan.stated else "gives no length"
            notes.append(f"its header {says}, but the file holds {samples / scan.rate:.2f} s; all of it is read")
    return _library(name, file, stream, notes=notes, unit=scan.block_samples)


def _ogg(name: str, file: FileBytes) -> AudioReader:
    from edge_sdk.signal.audio_file.compressed.ogg import ogg_fault, ogg_length

    fault, (samples, clock) = ogg_fault(file), ogg_length(file)
    reader = _library(name, file, file.file.fileno(), cut=fault is not None)
    seconds = (reader.frames or 0) / reader.sample_rate
    promised = samples / (clock or reader.sample_rate)
    if fault is None and promised - seconds > _OGG_SHORT_S:
        fault, reader.cut = f"damaged: its last page is numbered for {promised:.2f} s", True
    if fault is not None:
        reader.add_note(f"{fault}; {seconds:.2f} s are read")
    return reader


def _library(
    name: str,
    file: FileBytes,
    source: Any,
    *,
    notes: list[str] | None = None,
    cut: bool = False,
    unit: int = 0,
    lenient: bool = False,
) -> AudioReader:
    from edge_sdk.signal.audio_file.compressed.library import LibraryDecoder

    notes, scale = list(notes or []), 1.0
    decoder = _opened(LibraryDecoder, file, source, unit)
    if decoder.subtype in ("FLOAT", "DOUBLE"):
        scale, note = float_scale(_blocks(decoder))
        notes += [] if note is None else [note]
        decoder.close()
        decoder = _opened(LibraryDecoder, file, source, unit)
    checked_rate(name, decoder.rate)
    if decoder.frames == 0:
        raise AudioError(f"{name} holds no samples; record it again")
    return AudioReader(
        name,
        decoder.rate,
        decoder.channels,
        decoder,
        notes=notes,
        cut=cut,
        scale=scale,
        lenient=lenient or cut,
        owned=[file],
    )


def _opened(kind: Any, file: FileBytes, source: Any, unit: int) -> Any:
    if isinstance(source, int):
        os.lseek(source, 0, os.SEEK_SET)
    else:
        source.seek(0)
    return kind(source, unit=unit)


def _blocks(decoder: Any) -> Iterator[npt.NDArray[np.float32]]:
    while len(block := decoder.read(1 << 16)):
        yield block
