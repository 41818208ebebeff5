"""One verb, one file, named as the verb; and the Hydra application for a run and a sweep."""
