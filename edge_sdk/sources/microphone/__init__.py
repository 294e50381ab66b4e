"""Microphones through PortAudio, with exact counts of dropped samples."""
