"""Triton Inference Server: model repository, decoder graph, load test."""
