"""The cost of a sweep in seconds and dollars, before and after."""
