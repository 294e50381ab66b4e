"""The training loop and what it is made of: optimisers, SAM, weight averaging, parallel processes, state, loggers."""
