"""Compare two models on the same cycles: ``python compare_bundles.py MODEL OTHER CORPUS ROOT [SPLIT]``.

MODEL and OTHER are bundles (``default`` is the one in the wheel) or checkpoints. Differences come with the interval of
a paired patient bootstrap: a difference whose interval holds zero is none.
"""

from __future__ import annotations

import sys

import edge_sdk


def main(model: str, other: str, corpus: str, root: str, split: str = "all") -> None:
    report = edge_sdk.evaluate(model, corpus, root, split=split, against=other, resamples=200)
    print(f"{report['name']} against {report['against']['name']} on {report['n']} cycles")
    for metric, row in report["against"]["metrics"].items():
        if row is not None:
            print(f"{metric:20} {row['value']:.3f} – {row['against']:.3f} = {row['difference']:+.3f}", end=" ")
            print(f"({row['low']:+.3f} … {row['high']:+.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
