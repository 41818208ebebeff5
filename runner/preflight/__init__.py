"""What is wrong with the runs of a sweep, before any starts."""

from runner.preflight.nodes import datasets_of, problems_of, split_of

__all__ = ["datasets_of", "problems_of", "split_of"]
