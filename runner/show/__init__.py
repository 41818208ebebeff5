"""What a terminal shows of plans, runs and sweeps."""
