"""Outputs of events: plain lines, JSON lines, a live view, a recording on disk."""
