"""Pushes a run to the Hugging Face hub: its files and its card, without anything private."""
