"""What a worker process is: its attempt, its ranks, its signals, its tracking."""
