"""Training of the cycle classifier: task, data, objectives, distillation, cross-validation."""
