"""Metrics without torch or scikit-learn, so that a device can score a bundle on its owner's data."""

from edge_sdk.metrics.bootstrap import PairedDifference, paired_bootstrap
from edge_sdk.metrics.calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    reliability_rows,
    softmax,
)
from edge_sdk.metrics.compare import ModelPredictions, compare_predictions
from edge_sdk.metrics.groups import age_band, auroc_within, evaluate_groups
from edge_sdk.metrics.icbhi import CLASSES, OTHER, IcbhiScores, confusion_matrix, encode_labels, icbhi_scores
from edge_sdk.metrics.ranking import OperatingPoint, auroc, average_precision, roc_curve, sensitivity_at_specificity
from edge_sdk.metrics.report import evaluate_predictions

__all__ = [
    "CLASSES",
    "OTHER",
    "ModelPredictions",
    "IcbhiScores",
    "OperatingPoint",
    "PairedDifference",
    "Reliability",
    "age_band",
    "auroc",
    "auroc_within",
    "average_precision",
    "compare_predictions",
    "confusion_matrix",
    "encode_labels",
    "evaluate_groups",
    "evaluate_predictions",
    "expected_calibration_error",
    "fit_temperature",
    "icbhi_scores",
    "negative_log_likelihood",
    "paired_bootstrap",
    "reliability",
    "reliability_rows",
    "roc_curve",
    "sensitivity_at_specificity",
    "softmax",
]
