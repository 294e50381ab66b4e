"""What goes wrong between a device and its host, on purpose and reproducibly."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

_LONGEST_DROP = 64


class Hit(NamedTuple):
    """One fault on the wire: where in the undamaged stream, and how many bytes it touched."""

    at: int
    size: int
    dropped: bool  # else: flipped


class Stall(NamedTuple):
    """The device falls silent, its converter goes on."""

    at_s: float
    for_s: float


class Unplug(NamedTuple):
    """The port vanishes and comes back; with ``reboot`` the device's clock starts anew."""

    at_s: float
    for_s: float
    reboot: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """What an emulated device suffers; times count from START. All off by default."""

    flip: float = 0.0  # probability that a byte is changed
    drop_every: float = 0.0  # mean bytes between two losses of 1 to 64 bytes; 0: none
    jitter_s: float = 0.0  # each block is sent up to this much late
    rate_ppm: float = 0.0  # how much too fast the device's clock runs
    stalls: tuple[Stall, ...] = ()
    unplugs: tuple[Unplug, ...] = ()


class FaultyWire:
    """Flips and drops bytes of a stream; the same for the same seed, however the stream is cut."""

    def __init__(self, *, flip: float = 0.0, drop_every: float = 0.0, seed: int = 0) -> None:
        self._flip_dice = random.Random(f"flip {seed}")
        self._drop_dice = random.Random(f"drop {seed}")
        self._flip = flip
        self._drop_every = drop_every
        self._at = 0
        self._next_flip = self._gap(self._flip_dice, flip)
        self._next_drop = self._gap(self._drop_dice, 1.0 / drop_every if drop_every else 0.0)
        self._dropping = 0
        self.hits: list[Hit] = []

    def damage(self, data: bytes) -> bytes:
        """What arrives of ``data``."""
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
            self._dropping = self._drop_dice.randint(1, _LONGEST_DROP)
            self.hits.append(Hit(at, self._dropping, True))
            self._next_drop = at + self._dropping + self._gap(self._drop_dice, 1.0 / self._drop_every)
        if at == self._next_flip:
            byte ^= self._flip_dice.randint(1, 255)
            self._next_flip = at + 1 + self._gap(self._flip_dice, self._flip)
            if not self._dropping:
                self.hits.append(Hit(at, 1, False))
        if self._dropping:
            self._dropping -= 1
            return b""
        return bytes([byte])

    @staticmethod
    def _gap(dice: random.Random, probability: float) -> int:
        return int(dice.expovariate(probability)) if probability else 1 << 62
