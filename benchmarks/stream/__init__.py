"""Benchmarks of the whole pipeline: throughput, replay, parallel streams, soak."""
