"""Kept recordings: the store, their audio, corrections, uploads and the corpus of the corrected ones."""
