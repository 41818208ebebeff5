"""`axosweep plan`: what would run, what is finished already, what is wrong with it. Starts nothing."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace

from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.errors import PlanRefused, SweepError
from runner.request import Request
from runner.types import Experiment, RunResult

USAGE = "axosweep plan [--json] [--overrides] [--diff SWEEP] [--write DIR] [-m] [GROUP=OPTION ...] [KEY=VALUE ...]"
DESCRIPTION = """\
Print what a launch would run, each run once: what is finished already, what is wrong with it, how long it will take
and what it will cost. Nothing is started.

After `plan`, write the same overrides and flags as for a launch: -m for a sweep, --force."""
EPILOG = """\
axosweep plan -m lora=r8,r16 seed=1,2,3           six runs, with their time
axosweep plan -m +sweeps=tiny_grid --json         the same for programs
axosweep plan -m learning_rate=1e-4,2e-4 executor=modal budget=40   with their price

`axosweep --help` lists the groups, keys and flags."""


def parser() -> VerbParser:
    """Parses the verb's own flags; everything else on the line goes to the Hydra application."""
    verb = VerbParser("plan", DESCRIPTION, usage=USAGE, epilog=EPILOG, formatter_class=RawDescriptionHelpFormatter)
    verb.add("--overrides", action="store_true", help="print the runs as overrides that any Hydra sweeper takes")
    verb.add_json("print the plan as JSON; if it is refused, the reason is under `refused`")
    verb.add("--diff", metavar="SWEEP", names=[Names.SWEEP], help="print what differs from an earlier sweep")
    verb.add("--write", metavar="DIR", names=[Names.FOLDER],
             help="write each run as a config for plain `axolotl train`")  # fmt: skip
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
        if args.overrides and (others := [f"--{name}" for name in ("json", "diff", "write") if getattr(args, name)]):
            raise SweepError(f"--overrides prints nothing else. Leave it out, or leave out {', '.join(others)}.")
        return application.run([*rest, f"action={action}", *(["json=true"] if args.json else [])], launch, page)
    except SweepError as error:
        if args.json and not isinstance(error, PlanRefused):  # it could not even be composed
            from runner.launch.printed_plan import PrintedPlan

            print_json(PrintedPlan(None, (), str(error)))
        raise
