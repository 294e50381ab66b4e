"""Writes the firmware's audio table: synthetic breaths, or a 16-bit mono wav at 16 kHz. Standard library only."""

from __future__ import annotations

import argparse
import array
import math
import random
import sys
import wave
from pathlib import Path

RATE_HZ = 16000
CYCLE_S = 3.0
CYCLES = 4
INSPIRATION_S, EXPIRATION_S, PAUSE_S = 1.1, 1.5, 0.1


def envelope(t: float) -> float:
    """Amplitude at ``t`` seconds of a respiratory cycle: inspiration, a short pause, a softer expiration, rest."""
    if t < INSPIRATION_S:
        return math.sin(math.pi * t / INSPIRATION_S) ** 2
    t -= INSPIRATION_S + PAUSE_S
    if 0.0 < t < EXPIRATION_S:
        return 0.45 * math.sin(math.pi * t / EXPIRATION_S) ** 2
    return 0.0


def breaths() -> array.array[int]:
    """Return noise between about 100 and 500 Hz under the envelope, with a 320 Hz wheeze in every second expiration."""
    rng = random.Random(20261121)
    low = slow = 0.0
    samples = array.array("h")
    count = round(CYCLE_S * RATE_HZ)
    low_gain = 1.0 - math.exp(-2.0 * math.pi * 500.0 / RATE_HZ)
    slow_gain = 1.0 - math.exp(-2.0 * math.pi * 100.0 / RATE_HZ)
    for cycle in range(CYCLES):
        for n in range(count):
            t = n / RATE_HZ
            low += low_gain * (rng.gauss(0.0, 1.0) - low)
            slow += slow_gain * (low - slow)
            value = 6000.0 * (low - slow) * (envelope(t) + 0.03)
            if cycle % 2 and t > INSPIRATION_S:
                value += 900.0 * envelope(t) * math.sin(2.0 * math.pi * 320.0 * t)
            samples.append(max(-32768, min(32767, round(value))))
    return samples


def from_wav(path: Path) -> array.array[int]:
    """Read a wav in the format that the firmware needs; exits with a message if it is in another format."""
    with wave.open(str(path), "rb") as recording:
        if (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) != (1, 2, RATE_HZ):
            sys.exit(f"make_table.py: {path} is not 16-bit mono at {RATE_HZ} Hz")
        samples = array.array("h")
        samples.frombytes(recording.readframes(recording.getnframes()))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def main() -> None:
    """Write the table to the path on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--wav", type=Path)
    options = parser.parse_args()
    samples = from_wav(options.wav) if options.wav else breaths()
    if len(samples) % 4:
        del samples[len(samples) // 4 * 4 :]  # a whole number of samples at 4 kHz too
    if sys.byteorder == "big":
        samples.byteswap()
    options.output.write_bytes(samples.tobytes())


if __name__ == "__main__":
    main()
