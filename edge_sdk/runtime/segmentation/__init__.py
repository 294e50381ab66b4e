"""Streaming segmentation of respiratory cycles: the network with its decoder, and the envelope without weights."""
