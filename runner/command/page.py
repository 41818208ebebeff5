"""Pages that a flag of the command line prints instead of running anything."""

from __future__ import annotations

from runner.api.arguments import COMPLETION, HELP, Arguments
from runner.command import help as help_page
from runner.config.fields import axolotl_fields
from runner.errors import SweepError


def page(args: Arguments) -> str | None:
    """Help, the versions, or the script of `-sc install=bash`, Hydra's own flag for completion; None without such a
    flag.
    """
    if any(flag in HELP for flag in args.flags):
        return help_page.text()
    if "--version" in args.flags:
        from importlib.metadata import version

        versions = f"Axolotl {axolotl_fields().version}, Hydra {version('hydra-core')}"
        return f"axosweep {version('axosweep')} ({versions})"
    if not any(flag in COMPLETION for flag in args.flags):
        return None
    if len(args.overrides) != 1 or not args.overrides[0].startswith("install="):
        raise SweepError('Shell completion: eval "$(axosweep completion bash)", or -sc install=bash.')
    from runner.command import completion

    return completion.script(args.overrides[0].removeprefix("install="))
