"""`axosweep plan`: what would run, what is finished already, what is wrong with it. Starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.errors import PlanRefused, SweepError
from runner.types import Experiment, Request, RunResult


def parser() -> VerbParser:
    """Of its own flags; everything else on its line goes to the Hydra application."""
    verb = VerbParser("plan", add_help=False)
    verb.add("--overrides", action="store_true")
    verb.add_json()
    verb.add("--diff", metavar="SWEEP", names=[Names.SWEEP])
    verb.add("--write", metavar="DIR", names=[Names.FOLDER])
    return verb


def main(words: Sequence[str]) -> int:
    flags = parser()
    args, rest = flags.parse_known_args(words)
    flags.refuse_blank(args)

    def launch(experiments: list[Experiment], request: Request) -> list[RunResult]:
        from runner.launch.sweep import launch_sweep

        return launch_sweep(experiments, replace(request, diff=args.diff, write=args.write))

    from runner.api import application  # imported late: completion reads only the flags, without Hydra
    from runner.command.page import page

    action = "overrides" if args.overrides else "plan"
    try:
        return application.run([*rest, f"action={action}", *(["json=true"] if args.json else [])], launch, page)
    except SweepError as error:
        if args.json and not isinstance(error, PlanRefused):  # it could not even be composed
            print_json({"sweep": None, "runs": [], "refused": str(error)})
        raise
