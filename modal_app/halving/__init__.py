"""Which runs of a search go on from a rung: any process decides it from the entries that are there. Standard
library."""
