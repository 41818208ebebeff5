"""What can be asked: groups, keys, overrides, sweep files. Without Hydra."""
