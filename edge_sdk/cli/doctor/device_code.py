"""GPU code inside a library: the compute capabilities that it was compiled for, read from its "fat binaries".

``get_available_providers`` lists what was compiled in, not what has a kernel for this board. Layout of the headers as
found by https://github.com/n-eiling/cuda-fatbin-decompression.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<IHHQ")  # magic, version, size of this header, size of the entries
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, -, size of this header, size of the code, -, -, minor, major, architecture
_PTX, _BINARY = 1, 2
_JETSON = {53, 62, 72, 87, 101, 110}  # machine code is compatible neither between them nor with other GPUs


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """Compute capabilities times ten: 87 for 8.7."""

    binaries: frozenset[int]  # machine code
    ptx: frozenset[int]  # assembly, which the driver compiles for this and any later capability

    def runs_on(self, capability: str) -> bool:
        """Whether a GPU of a compute capability can run it: machine code of it, of an earlier minor, or PTX."""
        major, minor = (int(part) for part in capability.split("."))
        number = 10 * major + minor
        earlier = {sm for sm in self.binaries if sm // 10 == major and sm <= number} - _JETSON
        if number in self.binaries or (earlier and number not in _JETSON):
            return True
        return any(sm <= number for sm in self.ptx)

    def __str__(self) -> str:
        parts = [f"sm_{sm}" for sm in sorted(self.binaries)] + [f"compute_{sm} (PTX)" for sm in sorted(self.ptx)]
        return ", ".join(parts) or "none"


def device_code(library: Path) -> DeviceCode:
    """Read the capabilities of a shared library; raises ``OSError`` where it cannot be read."""
    found: dict[int, set[int]] = {_PTX: set(), _BINARY: set()}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_MAGIC)
        while at >= 0:
            at = content.find(_MAGIC, max(at + 4, _read(content, at, found)))
    return DeviceCode(frozenset(found[_BINARY]), frozenset(found[_PTX]))


def _read(content: mmap.mmap, at: int, found: dict[int, set[int]]) -> int:
    """Read the entries of the fat binary at an offset; return where it ends."""
    if at + _HEADER.size > len(content):
        return at
    head: tuple[int, ...] = _HEADER.unpack_from(content, at)
    version, header, size = head[1:]
    if version != 1 or header < _HEADER.size:
        return at  # the same four bytes by chance
    place, end = at + int(header), min(at + int(header) + int(size), len(content))
    while place + _ENTRY.size <= end:
        fields: tuple[int, ...] = _ENTRY.unpack_from(content, place)
        kind, entry, length, architecture = fields[0], fields[2], fields[3], fields[-1]
        if kind not in found or entry < _ENTRY.size or not 30 <= architecture <= 999:
            break
        found[kind].add(architecture)
        place += entry + length
    return end
