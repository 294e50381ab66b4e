"""Training: recipes, audio cache, device simulation, the fit loop, calibration and checkpoints; needs torch."""
