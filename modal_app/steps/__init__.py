"""The kinds of work: preprocess, train, merge, infer, evaluate."""
