"""What a request may contain: groups, keys, overrides, sweep files. Does not import Hydra."""
