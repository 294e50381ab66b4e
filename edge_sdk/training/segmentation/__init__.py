"""Training of the segmenter: excerpts with annotation, targets, loss, validation by the emitted cycles."""
