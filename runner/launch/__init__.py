"""The line from experiments to a finished sweep."""
