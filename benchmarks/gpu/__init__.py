"""GPU benchmark: one command for the day a GPU is there, from a folder packed before."""
