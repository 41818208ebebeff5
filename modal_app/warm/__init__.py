"""The preloaded trainer, which forks a child per step."""
