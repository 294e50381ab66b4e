"""The same work in this SDK and in other projects."""
