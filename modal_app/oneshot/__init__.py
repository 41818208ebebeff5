"""Short processes that the launcher starts to answer one question."""
