"""What runs next to the GPU: one worker for a laptop and for a Modal container, and the files that it writes.

Nothing in this package imports `runner`. Most modules import only the standard library when they are loaded.
"""
