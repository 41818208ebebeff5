"""`axosweep infer`: the answers of a run, or of every finished run of a sweep and their base model."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.console.parser import Names, VerbParser, count
from runner.errors import SweepError
from runner.files.answers import Column, column_of
from runner.follow_up.base_model import base_answers, base_hash
from runner.follow_up.carry_out import FollowUpResult, carry_out, exit_code, show_failures, tell_report
from runner.follow_up.prompts import STDIN, keep_prompts, prompts_of, refuse_too_long
from runner.follow_up.show_answers import show_answers
from runner.follow_up.steps import merge_step
from runner.follow_up.subjects import Subject, after_step, subjects
from runner.store.finding import runs_in
from runner.store.stores import stores
from runner.types import PlannedStep

TEMPERATURE, SEED = 0.7, 0
"""The defaults of sampling."""
QUESTION = "Ask a question with --prompt: axosweep infer --prompt 'Where does Ada live?'"
CANNOT_ANSWER = {
    "reward_model": "it rates answers, and does not write any",
    "process_reward_model": "it rates answers, and does not write any",
}


def parser() -> VerbParser:
    verb = VerbParser(
        "infer",
        more=QUESTION,
        description="Prompt a finished run, or all runs of a sweep and their base model side by side. Answers that are "
        "in the store are not generated again.",
    )
    which = "a run's key, or a sweep: all its runs; the newest sweep by default"
    verb.add("run", nargs="?", names=[Names.RUN], help=which)
    verb.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a prompt; may be repeated")
    verb.add("--prompts", metavar="FILE", names=[Names.FILE], help="a prompt per line, or .jsonl; - is standard input")
    verb.add_argument("--system", metavar="TEXT", help="a system message for prompts that have none")
    verb.free_text = {"prompt", "system"}
    verb.add_argument("--greedy", action="store_true", help="take the likeliest token each time, without sampling")
    verb.add_argument("--temperature", type=_positive, help=f"temperature of the sampling; {TEMPERATURE} by default")
    verb.add_argument("--seed", type=int, help=f"seed of the sampling; {SEED} by default")
    verb.add_argument(
        "--max-tokens", type=count, default=256, metavar="N", help="the most tokens of an answer; 256 by default"
    )
    verb.add_argument("--merged", action="store_true", help="prompt the merged model, which `axosweep merge` creates")
    verb.add_argument(
        "--base", action=argparse.BooleanOptionalAction, help="also prompt the base model; the default for a sweep"
    )
    verb.add_store()
    verb.add_json("print JSON: run, prompt and output of each answer")
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0 when everything has been answered, otherwise 1. Raises SweepError before anything starts."""
    args = parser().read(words)
    _refuse_misread(args)
    piped = sys.stdin.buffer.read() if args.prompts == STDIN else b""
    prompts = prompts_of(args.prompt, args.prompts, piped, args.system)
    known = stores(args.store)
    *_, sweep = runs_in(known, args.run)
    chosen = subjects(known, args.run, every=True)
    for one in chosen:
        _refuse_unanswering(one)
        refuse_too_long(prompts, _context(one), f"the model of {one.key}")
    merged = {one.key: _merged(one) for one in chosen} if args.merged else {}
    store = chosen[0].store
    options = _options(args) | {"prompts": keep_prompts(store, prompts)}
    with_base = sweep is not None if args.base is None else args.base
    steps = [*(base_answers(chosen, options) if with_base else ()), *(_step(one, options, merged) for one in chosen)]
    command = shlex.join(["axosweep", "infer", *words])
    carried = carry_out(chosen, steps, command=command, inputs=(options["prompts"],))
    names = {one.key: one.name for one in chosen}
    columns = [column for one in carried if (column := _column(chosen[0], one, names)) is not None]
    show_answers(columns, as_json=args.json)
    show_failures(carried, store)
    if sweep is not None and not args.json:
        tell_report(carried, sweep)
    return exit_code(carried)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    sampling = {
        "temperature": TEMPERATURE if args.temperature is None else args.temperature,
        "seed": SEED if args.seed is None else args.seed,
    }
    return {"greedy": args.greedy, "max_tokens": args.max_tokens, **({} if args.greedy else sampling)}


def _refuse_misread(args: argparse.Namespace) -> None:
    unused = [flag for flag in ("temperature", "seed") if getattr(args, flag) is not None]
    if args.greedy and unused:
        raise SweepError(f"--{' and --'.join(unused)}: for sampling, and --greedy does not sample. Leave one out.")
    if args.run is not None and len(args.run.split()) > 1:
        raise SweepError(f"{args.run}: this is not the name of a run or sweep. {QUESTION}")


def _step(subject: Subject, options: Mapping[str, Any], merged: Mapping[str, str]) -> PlannedStep:
    own = {"merged": merged[subject.key]} if merged else {}
    return after_step(subject, StepKind.INFER, {**options, "base": base_hash(subject), **own})


def _merged(subject: Subject) -> str:
    """The key of the step that has merged a run. Raises SweepError when none has."""
    merge = merge_step(subject)
    if not merge.done:
        raise SweepError(f"{subject.key} has no merged model yet. Create it: axosweep merge {subject.key}")
    return merge.step.key


def _column(subject: Subject, carried: FollowUpResult, names: Mapping[str, str]) -> Column | None:
    step = carried.step.step
    return column_of(subject.store, step.key, names.get(step.run, "") if step.run else "the base model")


def _refuse_unanswering(subject: Subject) -> None:
    for key, why in CANNOT_ANSWER.items():
        if subject.config.get(key):
            raise SweepError(f"{subject.key} cannot answer: {why} ({key} is set).")


def _context(subject: Subject) -> int | None:
    """The most tokens that the model reads, if its config is stored here; training may have extended it."""
    base = str(subject.config.get("base_model", ""))
    own = read_json(subject.store.root / base / "config.json").get("max_position_embeddings")
    return None if own is None else max(int(own), int(subject.config.get("sequence_len") or 0))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 is expected; --greedy does not sample")
    return value
