"""Searches whose next points depend on results: `search=coordinate` and `search=tpe`."""
