"""`axosweep resume`: train runs that stopped before their end, as runs of their sweep."""

from __future__ import annotations

from collections.abc import Sequence

from runner.command.budget_word import BUDGET, with_budget
from runner.console.parser import Names, VerbParser
from runner.errors import ExitCode, SweepError
from runner.store.stores import is_mirror, stores


def parser() -> VerbParser:
    verb = VerbParser(
        "resume",
        description="Finish runs that stopped at a rung of a search, were stopped or lost, or failed. "
        "Each resumes from its last checkpoint, stays in its sweep, and no longer stops at rungs.",
        more="Runs and budget=DOLLARS are expected.",
    )
    words = "keys of runs, or the beginnings of keys; on Modal, the most dollars for all these runs together"
    verb.add("words", nargs="+", metavar="RUN|budget=DOLLARS", names=[Names.RUN], help=words)
    verb.add_argument("--yes", action="store_true", help="do not ask on Modal, even above confirm_above dollars")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0 if all of them have finished, otherwise 1. Raises SweepError before anything starts."""
    from runner.api.resume import resume, stopped_runs  # imported late: completion reads only the flags

    args = parser().read(words)
    names, budget = with_budget("resume", args.words)
    if strange := [name for name in names if "=" in name]:
        raise SweepError(
            f"{strange[0]}: a run is resumed as it was launched, so resume takes no override but {BUDGET}DOLLARS. "
            "from=RUN@STEP starts another run from a checkpoint."
        )
    if not names:
        raise SweepError("resume takes the keys of runs. `axosweep compare` shows which have stopped.")
    groups = stopped_runs(stores(args.store), names)
    if len(groups) > 1 and (args.json or budget is not None):
        raise SweepError(
            f"These runs belong to {len(groups)} sweeps ({', '.join(one.sweep for one in groups)}), but --json and "
            f"{BUDGET} work for one sweep. Resume the runs of each sweep with a command of its own."
        )
    if budget is not None and not is_mirror(groups[0].store):
        raise SweepError(
            f"{BUDGET}{budget:g}: it limits the dollars spent on Modal, but {groups[0].sweep} runs on this machine. "
            "Leave it out."
        )
    results = [result for one in groups for result in resume(one, budget=budget, confirmed=args.yes, as_json=args.json)]
    return ExitCode.SUCCEEDED if all(result.succeeded for result in results) else ExitCode.FAILED
