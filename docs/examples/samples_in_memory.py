"""Feed samples block by block, as an application with its own capture does; the block size changes nothing."""

from __future__ import annotations

import numpy as np

import edge_sdk


def patient(seconds: float, rate_hz: int) -> np.ndarray:
    """Samples ``[n]`` of a simulated patient."""
    with edge_sdk.open_source("phantom:pneumonia") as source:
        assert source.sample_rate == rate_hz
        blocks = []
        for block in source:
            blocks.append(block.samples)
            if sum(map(len, blocks)) >= seconds * rate_hz:
                break
    return np.concatenate(blocks)


def main() -> None:
    rate_hz = 4000
    samples = patient(15.0, rate_hz)
    bundle = edge_sdk.load_bundle()

    def labels(block: int) -> list[str | None]:
        stream = bundle.stream(rate_hz)
        events = [e for i in range(0, len(samples), block) for e in stream.accept(samples[i : i + block])]
        events += stream.finish()
        return [event.label for event in events if isinstance(event, edge_sdk.CycleResult)]

    print("blocks of 20 ms:", labels(80))
    print("blocks of 1 s:  ", labels(4000))
    print("in one call:    ", [result.label for result in edge_sdk.screen((samples, rate_hz)).cycles])


if __name__ == "__main__":
    main()
