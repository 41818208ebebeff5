"""What runs beside the GPU: one worker for a laptop and for a Modal container, and the files it leaves.

Nothing in this package imports `runner`, and nothing outside `plugin`, `preprocess` and `train` needs
more than the standard library.
"""
