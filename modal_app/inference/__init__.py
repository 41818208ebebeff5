"""How a trained model answers."""
