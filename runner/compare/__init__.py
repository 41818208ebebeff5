"""Runs beside each other: rows, ranks, the best of them, and how they are shown."""
