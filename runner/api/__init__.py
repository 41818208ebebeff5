"""The functions of the command line and of Python programs: compose a request, plan it, launch it, read its results.

The package `axosweep` re-exports those that are meant for users. Imports nothing, since shell completion reads the
flags here.
"""
