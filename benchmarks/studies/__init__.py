"""One-off questions, each a script with its results."""
