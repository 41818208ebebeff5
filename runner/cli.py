"""`axosweep`: runs a verb, or the Hydra application. An error ends here, as one message and an exit code."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import itertools
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runner.command import VERBS
from runner.console import terminal
from runner.errors import ExitCode, SweepError, did_you_mean

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a place that cannot be written to."""
NO_HOME = "Could not determine home directory."
"""What pathlib says of a path that it cannot expand."""
GC_THRESHOLD = 50_000
"""New objects after which Python looks for garbage. Imports and composing create many objects that stay, and almost no
garbage. Python's own threshold, 2,000, makes the start of a command 5% longer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    terminal.open_closed()
    terminal.print_anything()
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)  # otherwise the interpreter walks through all objects at exit
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, and not at exit: it may not be possible
        return code
    except SweepError as error:
        if text := str(error):
            terminal.message(f"axosweep: {text}")
        return ExitCode.MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write("axosweep: stopped. The same command continues where this one ended.\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has closed the pipe (| head)
        return 0
    except RuntimeError as error:
        if str(error) != NO_HOME:
            raise
        terminal.message(
            "axosweep: The home folder of a path that begins with ~ is unknown: there is no such user, or HOME is not "
            "set. Check the paths of this command, and variables such as AXOSWEEP_STORE."
        )
        return ExitCode.MISTAKE
    except OSError as error:
        if full := _full_disk(error):
            terminal.message(f"axosweep: {full}")
            _flush_or_drop_output()
            return ExitCode.MISTAKE
        if error.errno not in UNWRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        terminal.message(f"axosweep: {where}{error.strerror}.")
        return ExitCode.MISTAKE


def _full_disk(error: OSError) -> str:
    """A sentence about a full disk; empty for another error. It may be that of the store, or of temporary files."""
    from modal_app.store.full_disk import full_disk

    store = os.environ.get("AXOSWEEP_STORE") or "out"
    return full_disk(error, [Path(store).absolute(), Path.cwd(), Path(tempfile.gettempdir())])


def _flush_or_drop_output() -> None:
    """If standard output is what is full, drop the rest: Python would try to write it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    verb = words[0] if words else "--help"
    if verb in VERBS:
        return int(importlib.import_module(f"runner.command.{VERBS[verb]}").main(words[1:]))
    if not words or any(word in ("-h", "--help") for word in words):
        from runner.command import help as help_page

        print(help_page.text())
        return 0
    if re.fullmatch(r"[A-Za-z_][\w-]*", verb):
        verbs = [name for name in VERBS if not name.startswith("_")]
        meant = did_you_mean(verb, verbs)
        raise SweepError(f"There is no verb {verb}.{meant} The verbs are {', '.join(verbs)}; an override is KEY=VALUE.")
    _refuse_late_verb(words)
    return _hydra(words)


def _refuse_late_verb(words: Sequence[str]) -> None:
    """A word after a flag is not refused: it may be the flag's value, such as a folder with a verb's name."""
    for before, word in itertools.pairwise(words):
        if word in VERBS and (before in ("-m", "--multirun") or not before.startswith("-")):
            others = [one for one in words if one is not word]
            raise SweepError(f"The verb comes first: {shlex.join(['axosweep', word, *others])}")


def _hydra(words: list[str]) -> int:
    from runner.api import application
    from runner.command.page import page

    return application.run(words, page=page)
