"""Short processes that the launcher starts for one answer."""
