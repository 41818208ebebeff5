"""How much memory a run needs on each GPU, estimated before one is rented."""
