"""Train on a CSV corpus: ``python train_on_csv.py CSV OUT``; without arguments, on simulated patients."""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.recipes.recipe import load_recipe
from edge_sdk.training.run import run_training
from edge_sdk.training.run_folder import RunOptions

SMALL = ["fit.epochs=2", "sampling.per_epoch=64", "fit.batch=16", "heart_corpus=null"]
"""Two short epochs on the smallest network: enough to see it work, not to learn."""


def simulated_corpus(folder: Path) -> Path:
    """Eight patients, 20 s each, with their true cycles: six to train on, two to validate."""
    with (folder / "cycles.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", "start_s", "end_s", "label", "patient", "split"))
        for patient in range(8):
            scenario = ("healthy", "asthma", "pneumonia", "copd")[patient % 4]
            with PhantomSource(scenario, seed=patient, duration_s=20.0, sample_rate=4000) as source:
                samples = np.concatenate([block.samples for block in source])
                soundfile.write(folder / f"{patient}.wav", samples, 4000)
                for cycle in source.truth:
                    if cycle.end_s < 20.0:
                        split = "val" if patient >= 6 else "train"
                        table.writerow((f"{patient}.wav", cycle.start_s, cycle.end_s, cycle.label, patient, split))
    return folder / "cycles.csv"


def main(table: Path, out: Path) -> None:
    recipe = load_recipe("compact", size="tiny", overrides=SMALL)
    metrics = run_training(recipe, RunOptions(corpus="csv", root=table, out=out))
    print(f"{metrics['checkpoint']}: AUROC {metrics['auroc']} on {metrics['n']} cycles")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(simulated_corpus(Path(temporary)), Path(temporary) / "run")
