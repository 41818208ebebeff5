"""`axosweep infer`: what a run, or every finished run of a sweep and the base model beside them, answers."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.inference.config import asked_of
from modal_app.serving.spec import FORMAT
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.after.carry_out import Carried, carry_out, exit_code, show_failures, tell_report
from runner.after.infer_show import show_answers
from runner.after.prompts import STDIN, keep_prompts, prompts_of, refuse_too_long
from runner.after.steps import merge_step
from runner.after.subjects import Subject, after_step, base_step, subjects
from runner.console.parser import VerbParser
from runner.errors import SweepError
from runner.files.answers import Column, column_of
from runner.keys.identity import TRAIN_ONLY, short_hash
from runner.store.finding import runs_in
from runner.store.stores import STORE_HELP, stores
from runner.types import PlannedStep

TEMPERATURE, SEED = 0.7, 0
"""Of a draw, unless it is said."""
QUESTION = "A question is asked with --prompt: axosweep infer --prompt 'Where does Ada live?'"
LOADING = frozenset(
    "load_in_4bit load_in_8bit bf16 fp16 fp8 tf32 bfloat16 float16 adapter attn_implementation flash_attention "
    "sdp_attention xformers_attention eager_attention flex_attention".split()
)
"""Train-only keys that a base model is loaded by all the same."""
DATA_ONLY = ("test_datasets", "val_set_size", "seed", "data_seed", "dataset_", "shuffle_", "train_on_", "excess_")
"""How the keys begin that say which rows are read, and no more of a base model."""
RL_ONLY = ("rl_", "dpo_", "orpo_", "cpo_", "simpo_", "kto_", "rpo_", "trl", "precompute_ref_log_probs")
"""How the keys begin that weigh preferences and rewards while it trains. `rl` itself says how its rows are written."""
NOT_ASKED = {
    "reward_model": "it rates answers, and gives none",
    "process_reward_model": "it rates answers, and gives none",
    "relora": "ReLoRA has changed its base model as well, which is not kept beside the adapter",
}


def infer(words: list[str]) -> int:
    """Exit code 0 when everything has been answered, else 1. Raises SweepError before anything starts."""
    asked = _parser().read(words)
    _refuse_misread(asked)
    piped = sys.stdin.buffer.read() if asked.prompts == STDIN else b""
    prompts = prompts_of(asked.prompt, asked.prompts, piped, asked.system)
    known = stores(asked.store)
    *_, sweep = runs_in(known, asked.run)
    chosen = subjects(known, asked.run, every=True)
    for one in chosen:
        _refuse_unanswering(one)
        refuse_too_long(prompts, _context(one), f"the model of {one.key}")
    merged = {one.key: _merged(one) for one in chosen} if asked.merged else {}
    store = chosen[0].store
    options = _options(asked) | {"prompts": keep_prompts(store, prompts)}
    with_base = sweep is not None if asked.base is None else asked.base
    steps = [*(_base_steps(chosen, options) if with_base else ()), *(_step(one, options, merged) for one in chosen)]
    command = shlex.join(["axosweep", "infer", *words])
    carried = carry_out(chosen, steps, command=command, inputs=(options["prompts"],))
    names = {one.key: one.name for one in chosen}
    columns = [column for one in carried if (column := _column(chosen[0], one, names)) is not None]
    show_answers(columns, as_json=asked.json)
    show_failures(carried, store)
    if sweep is not None and not asked.json:
        tell_report(carried, sweep)
    return exit_code(carried)


def _parser() -> VerbParser:
    parser = VerbParser(
        "infer",
        more=QUESTION,
        description="Ask a finished run, or all of a sweep and their base model side by side. Done once: the same "
        "question asked again is read from the store.",
    )
    parser.add_argument("run", nargs="?", help="a run's key, or a sweep: all its runs; the newest sweep by default")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="as often as you like")
    parser.add_argument("--prompts", metavar="FILE", help="a prompt a line, or .jsonl; - is standard input")
    parser.add_argument("--system", metavar="TEXT", help="a system message for prompts that have none")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token, instead of a draw")
    parser.add_argument("--temperature", type=_positive, help=f"of the draw; {TEMPERATURE} by default")
    parser.add_argument("--seed", type=int, help=f"of the draw; {SEED} by default")
    parser.add_argument("--max-tokens", type=_whole, default=256, metavar="N", help="of an answer; 256 by default")
    parser.add_argument("--merged", action="store_true", help="ask the merged model, which `axosweep merge` makes")
    parser.add_argument(
        "--base", action=argparse.BooleanOptionalAction, help="the base model, too; by default beside a sweep"
    )
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON: a list of {run, prompt, output}")
    return parser


def _options(asked: argparse.Namespace) -> dict[str, Any]:
    drawn = {
        "temperature": TEMPERATURE if asked.temperature is None else asked.temperature,
        "seed": SEED if asked.seed is None else asked.seed,
    }
    return {"greedy": asked.greedy, "max_tokens": asked.max_tokens, **({} if asked.greedy else drawn)}


def _refuse_misread(asked: argparse.Namespace) -> None:
    idle = [flag for flag in ("temperature", "seed") if getattr(asked, flag) is not None]
    if asked.greedy and idle:
        raise SweepError(f"--{' and --'.join(idle)}: of a draw, and --greedy draws nothing. Leave one out.")
    if asked.run is not None and len(asked.run.split()) > 1:
        raise SweepError(f"{asked.run}: the name of a run or sweep is expected there. {QUESTION}")


def _step(subject: Subject, options: Mapping[str, Any], merged: Mapping[str, str]) -> PlannedStep:
    own = {"merged": merged[subject.key]} if merged else {}
    return after_step(subject, StepKind.INFER, {**options, "base": base_hash(subject), **own})


def _merged(subject: Subject) -> str:
    """The key of the step that has merged a run. Raises SweepError when none has."""
    merge = merge_step(subject)
    if not merge.done:
        raise SweepError(f"{subject.key} has no merged model yet. Make it: axosweep merge {subject.key}")
    return merge.step.key


def _base_steps(chosen: Sequence[Subject], options: Mapping[str, Any]) -> list[PlannedStep]:
    """One for each base model that the runs have."""
    firsts = {base_hash(one): one for one in reversed(chosen)}
    found = [base_step(one, StepKind.INFER, {**options, "base": digest}, digest) for digest, one in firsts.items()]
    return found[::-1]


def base_hash(subject: Subject) -> str:
    """Names a base model as it is loaded and asked: what only an adapter or a training differs by is not in it."""
    kept = asked_of(subject.config, adapter=None, weights=None)
    left_out = TRAIN_ONLY - LOADING
    part = {
        key: value for key, value in kept.items() if key not in left_out and not key.startswith(DATA_ONLY + RL_ONLY)
    }
    first: Mapping[str, Any] = next(iter(part.pop("datasets", None) or ()), {})
    return short_hash({"config": part, "format": {name: first[name] for name in FORMAT if name in first}})


def _column(subject: Subject, carried: Carried, names: Mapping[str, str]) -> Column | None:
    step = carried.step.step
    return column_of(subject.store, step.key, names.get(step.run, "") if step.run else "the base model")


def _refuse_unanswering(subject: Subject) -> None:
    for key, why in NOT_ASKED.items():
        if subject.config.get(key):
            raise SweepError(f"{subject.key} cannot be asked: {why} ({key} is set).")


def _context(subject: Subject) -> int | None:
    """Tokens that the model reads at most, where its config is at hand; training may have stretched it."""
    base = str(subject.config.get("base_model", ""))
    own = read_json(subject.store.root / base / "config.json").get("max_position_embeddings")
    return None if own is None else max(int(own), int(subject.config.get("sequence_len") or 0))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 is expected; --greedy draws nothing")
    return value


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1, is expected")
    return int(text)
