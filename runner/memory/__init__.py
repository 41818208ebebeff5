"""What a training will need of each card, before one is rented."""
