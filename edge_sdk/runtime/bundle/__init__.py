"""Bundles: loaded, checked against their hashes and signature, proven by their golden vector."""
