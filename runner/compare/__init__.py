"""Comparing runs: rows, ranks, groups, the best run, and how they are shown."""
