"""Plans, runs and sweeps on the terminal."""
