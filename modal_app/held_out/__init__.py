"""The loss of each held-out row, and what the rows are: written by the steps, read by comparisons. Needs numpy."""
