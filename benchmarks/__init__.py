"""Benchmarks: latency, accuracy, streaming; results kept as JSON and Markdown."""
