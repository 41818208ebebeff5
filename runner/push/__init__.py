"""A run on its way to the Hugging Face hub: its files, its card, nothing private."""
