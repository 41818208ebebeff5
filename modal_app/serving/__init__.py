"""Serving models: an OpenAI endpoint on this machine, vLLM on Modal."""
