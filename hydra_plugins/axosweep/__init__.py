"""axosweep's Hydra plugins: a sweeper, a launcher, and the search-path entry for sweeps/.

Thin adapters; Hydra imports them all at every start, so nothing heavy is imported at their top.
"""
