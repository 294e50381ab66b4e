"""Reproducible faults between a device and its host."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

_MAX_DROP_BYTES = 64


class Hit(NamedTuple):
    """One fault on the wire: position in the undamaged stream and number of bytes."""

    at: int
    size: int
    dropped: bool  # False: flipped


class Stall(NamedTuple):
    """The device sends nothing for a while; its converter goes on."""

    at_s: float
    for_s: float


class Unplug(NamedTuple):
    """The port disappears and returns; with ``reboot`` the device's clock is restarted."""

    at_s: float
    for_s: float
    reboot: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of an emulated device, all off by default; times count from START."""

    flip: float = 0.0  # probability that a byte is changed
    drop_every: float = 0.0  # mean bytes between two drops of 1 to 64 bytes; 0: none
    jitter_s: float = 0.0  # each block is sent up to this much later
    rate_ppm: float = 0.0  # how much the device's clock is fast
    stalls: tuple[Stall, ...] = ()
    unplugs: tuple[Unplug, ...] = ()


class FaultyWire:
    """Flips and drops bytes of a stream; the result depends on the seed only, not on how the stream is split."""

    def __init__(self, *, flip: float = 0.0, drop_every: float = 0.0, seed: int = 0) -> None:
        self._flip_rng = random.Random(f"flip {seed}")
        self._drop_rng = random.Random(f"drop {seed}")
        self._flip = flip
        self._drop_every = drop_every
        self._at = 0
        self._next_flip = self._gap(self._flip_rng, flip)
        self._next_drop = self._gap(self._drop_rng, 1.0 / drop_every if drop_every else 0.0)
        self._dropping = 0
        self.hits: list[Hit] = []

    def damage(self, data: bytes) -> bytes:
        """Return the bytes that arrive of ``data``."""
        end = self._at + len(data)
        if not self._dropping and min(self._next_flip, self._next_drop) >= end:
            self._at = end
            return data
        out = bytearray()
        for byte in data:
            out += self._pass(byte)
        return bytes(out)

    def _pass(self, byte: int) -> bytes:
        at = self._at
        self._at += 1
        if at == self._next_drop:
            self._dropping = self._drop_rng.randint(1, _MAX_DROP_BYTES)
            self.hits.append(Hit(at, self._dropping, True))
            self._next_drop = at + self._dropping + self._gap(self._drop_rng, 1.0 / self._drop_every)
        if at == self._next_flip:
            byte ^= self._flip_rng.randint(1, 255)
            self._next_flip = at + 1 + self._gap(self._flip_rng, self._flip)
            if not self._dropping:
                self.hits.append(Hit(at, 1, False))
        if self._dropping:
            self._dropping -= 1
            return b""
        return bytes([byte])

    @staticmethod
    def _gap(rng: random.Random, probability: float) -> int:
        return int(rng.expovariate(probability)) if probability else 1 << 62
