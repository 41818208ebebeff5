"""The files of runs: listing, pulling and removing them."""
