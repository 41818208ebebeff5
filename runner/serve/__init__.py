"""Finished runs behind an OpenAI-compatible endpoint, here or on Modal."""
