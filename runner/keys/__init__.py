"""What a run is: its inputs by content or commit, its keys."""
