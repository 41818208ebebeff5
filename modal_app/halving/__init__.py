"""Which runs of a search go on from a rung, decided from what is there, by whoever looks. Standard library."""
