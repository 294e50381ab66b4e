"""Evaluation of models and segmenters on annotated corpora."""
