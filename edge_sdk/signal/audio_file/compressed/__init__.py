"""Compressed audio: what libsndfile decodes, once its frames or pages are checked."""
