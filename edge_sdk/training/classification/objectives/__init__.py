"""Objectives: a network and a batch in, one differentiable number out."""

from edge_sdk.training.classification.objectives.objective import Objective, make_objective

__all__ = ["Objective", "make_objective"]
