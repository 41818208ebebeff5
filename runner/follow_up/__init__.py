"""What is done with runs that have finished: merge, infer, evaluate."""
