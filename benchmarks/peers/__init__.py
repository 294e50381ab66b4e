"""Benchmarks beside other projects on the same work."""
