"""Training of the network that finds crackles and wheezes in continuous audio, and calibration of the verdict."""
