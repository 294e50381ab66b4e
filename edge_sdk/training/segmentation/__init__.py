"""Training of the breath segmenter: sequences with their truth, targets, loss, validation by what is emitted."""
