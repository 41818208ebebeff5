"""What a sweep will cost and has cost, in seconds and dollars."""
