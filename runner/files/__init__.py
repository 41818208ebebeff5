"""What runs have made: listing it, bringing it home, making room."""
