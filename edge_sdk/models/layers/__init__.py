"""Layers that the published systems share or are made of."""
