"""Models, one file per published system: ``forward(features [B, 1, M, T], metadata=None) -> logits [B, C]``; torch."""

from edge_sdk.models.registry import MODELS, ModelEntry, build_model, count_parameters, model_entry

__all__ = ["MODELS", "ModelEntry", "build_model", "count_parameters", "model_entry"]
