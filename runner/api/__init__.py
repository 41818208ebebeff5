"""What the command line and Python programs ask: compose a request, plan it, launch it, read what came of it.

`axosweep` (the package of that name) has what is meant for others. Imports nothing, since shell completion reads the
flags here.
"""
