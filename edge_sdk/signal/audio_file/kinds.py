"""What a file is, by its first bytes; and the way out for what cannot be read here."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["wave", "wave64", "aiff", "au", "caf", "flac", "ogg", "mpeg", "library"]
"""``library``: left to libsndfile, which knows more formats than are described here."""

HEAD_BYTES = 64
"""First bytes that :func:`kind_of` and :func:`unreadable` look at."""

WAVE64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")


def kind_of(head: bytes) -> Kind:
    """The container that begins with ``head``."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wave"
    if head[:16] == WAVE64_RIFF:
        return "wave64"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] in (b".snd", b"dns."):
        return "au"
    if head[:4] == b"caff":
        return "caf"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06):
        return "mpeg"
    return "library"


def unreadable(head: bytes) -> str | None:
    """Name of a format that nothing here decodes, None where it may be readable."""
    brand = head[8:12]
    if head[4:8] == b"ftyp":
        return "AAC or ALAC in an MP4 container (m4a, mp4)" if brand != b"qt  " else "a QuickTime movie (mov)"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free") and head[:2] == b"\0\0":
        return "a QuickTime or MP4 file (m4a, mov)"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "a video (avi)"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "AAC (adts)"
    for magic, name in _UNREADABLE.items():
        if head.startswith(magic):
            return name
    return None


_UNREADABLE = {
    bytes.fromhex("3026b2758e66cf11"): "Windows Media audio (wma)",
    bytes.fromhex("1a45dfa3"): "a Matroska or WebM file (webm, mka)",
    b"ADIF": "AAC (adif)",
    b"#!AMR": "AMR speech (amr)",
    b"MAC ": "Monkey's Audio (ape)",
    b"wvpk": "WavPack (wv)",
    b"TTA1": "True Audio (tta)",
    b"MPCK": "Musepack (mpc)",
    b"MP+": "Musepack (mpc)",
    b"DSD ": "Direct Stream Digital (dsf)",
    b"FRM8": "Direct Stream Digital (dff)",
    b"\x00\x00\x01\xba": "a video (mpg)",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x89PNG": "a picture (png)",
    b"\xff\xd8\xff": "a picture (jpeg)",
}

_NOT_AUDIO = ("document", "archive", "picture")


def way_out(path: str, name: str) -> str:
    """The line of an error for a file that is ``name``."""
    if any(word in name for word in _NOT_AUDIO):
        return f"{path} is {name}, no audio: it is not a readable recording; name a wav or flac file"
    target = path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1].lstrip(".") else path
    return (
        f"{path} is {name}, not a readable recording; convert it first, for example: "
        f"ffmpeg -i {_quoted(path)} -c:a pcm_s16le {_quoted(target + '.wav')}"
    )


def _quoted(path: str) -> str:
    plain = path.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    return path if plain.isalnum() else "'" + path.replace("'", "'\\''") + "'"
