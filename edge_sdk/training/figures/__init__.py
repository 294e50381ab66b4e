"""Figures of a trained model, each a PNG and a JSON of its numbers; they need the extra ``figures``."""

from edge_sdk.training.figures.catalogue import FIGURES, FigureEntry, FigureResult, draw_figures
from edge_sdk.training.figures.evaluated import EvaluatedModel, load_evaluated_model

__all__ = ["FIGURES", "FigureEntry", "FigureResult", "EvaluatedModel", "draw_figures", "load_evaluated_model"]
