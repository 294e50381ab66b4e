"""Commands of the training side: data, train, evaluate, segment-eval, figures."""
