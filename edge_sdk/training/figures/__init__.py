"""Figures of a trained model, each a PNG and a JSON of its numbers; the extra ``figures`` brings what they need."""

from edge_sdk.training.figures.catalogue import FIGURES, FigureEntry, Outcome, draw_figures
from edge_sdk.training.figures.evaluated import Subject, load_subject

__all__ = ["FIGURES", "FigureEntry", "Outcome", "Subject", "draw_figures", "load_subject"]
