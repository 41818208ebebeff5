"""`axosweep eval`: how good runs are on their held-out rows, or on tasks of the lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modal_app.oneshot.tasks import index_in, said_of
from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from modal_app.store.own_data import own_data_of
from modal_app.store.sources import RUN
from runner.console.parser import Names, VerbParser, count
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.follow_up.base_model import base_evaluations
from runner.follow_up.carry_out import carry_out, exit_code, show_failures, tell_report
from runner.follow_up.show_measures import Line, show_lines
from runner.follow_up.steps import evaluate_step
from runner.follow_up.subjects import Subject, subjects
from runner.keys.content import keep_in
from runner.store.stores import stores

BATCH_SIZE = 8
"""As Axolotl's own lm_eval_batch_size."""
LONGEST_ANSWER_S = 120.0
"""The longest that the harness takes to list its tasks."""


def parser() -> VerbParser:
    verb = VerbParser(
        "eval",
        description="Measure finished runs: the loss on the rows that were held out of their dataset, or --tasks of "
        "the lm-evaluation-harness. Results that are in the store are not computed again, unless an earlier version of "
        "axosweep has stored them without the loss of each row. `compare` and `report` show the results.",
    )
    which = "a run's key, or a sweep: all its finished runs; the newest sweep by default"
    verb.add("run", nargs="?", names=[Names.RUN], help=which)
    verb.add_argument("--best", action="store_true", help="only the best run of a sweep")
    verb.add_argument("--base", action="store_true", help="evaluate the base model, too")
    verb.add_argument(
        "--tasks",
        action="append",
        default=[],
        metavar="NAME,...",
        help="evaluate on these tasks instead of the held-out rows",
    )
    own = "a folder with your own task files and the files that these name"
    verb.add("--include-path", metavar="DIR", names=[Names.FOLDER], help=own)
    verb.add_argument("--limit", type=count, metavar="N", help="at most N documents of each task")
    verb.add_argument("--num-fewshot", type=_shots, metavar="N", help="examples before each question")
    verb.add_argument(
        "--no-chat-template", action="store_true", help="plain text, without the chat template of the run"
    )
    verb.add_argument("--batch-size", type=count, default=BATCH_SIZE, metavar="N", help=f"{BATCH_SIZE} by default")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0 when everything has been measured, otherwise 1. Raises SweepError before anything starts."""
    args = parser().read(words)
    names = _names(args)
    chosen = subjects(stores(args.store), args.run, every=not args.best)
    store = chosen[0].store
    if names:
        include = None if args.include_path is None else _stored_folder(store, Path(args.include_path))
        options = _options(args, names, include)
    else:
        include, options = None, {}
        for one in chosen:
            _refuse_without_rows(one)
    steps = [
        *(base_evaluations(chosen, options) if args.base else ()),
        *(evaluate_step(one, options) for one in chosen),
    ]
    if names and not all(one.done for one in steps):
        _refuse_unknown(store, names, args.include_path)
    command = shlex.join(["axosweep", "eval", *words])
    carried = carry_out(chosen, steps, command=command, inputs=() if include is None else (include,))
    show_lines([Line.of(one, chosen) for one in carried], chosen[0], as_json=args.json)
    show_failures(carried, store)
    if names and not args.json:  # for losses, the report shows what training logged
        tell_report(carried, chosen[0].sweep)
    return exit_code(carried)


def _names(args: argparse.Namespace) -> tuple[str, ...]:
    """The tasks, each once and sorted: their order does not matter."""
    names = {name.strip() for text in args.tasks for name in text.split(",")}
    if args.tasks and not all(names):
        raise SweepError(f"--tasks {','.join(args.tasks)}: a name is empty. Write them as --tasks hellaswag,arc_easy.")
    task_flags = {
        "--include-path": args.include_path is not None,
        "--limit": args.limit is not None,
        "--num-fewshot": args.num_fewshot is not None,
        "--no-chat-template": args.no_chat_template,
    }
    if not names and (used := [flag for flag, given in task_flags.items() if given]):
        raise SweepError(f"{', '.join(used)} needs tasks: name them with --tasks hellaswag,arc_easy.")
    return tuple(sorted(names))


def _options(args: argparse.Namespace, names: Sequence[str], include: str | None) -> dict[str, Any]:
    return {
        "tasks": list(names),
        "include": include,
        "limit": args.limit,
        "num_fewshot": args.num_fewshot,
        "chat_template": not args.no_chat_template,
        "batch_size": args.batch_size,
    }


def _refuse_without_rows(subject: Subject) -> None:
    if own := own_data_of(subject.config):
        raise SweepError(
            f"{subject.key} reads its own data ({own.key}), so its held-out rows are not stored. `axosweep compare` "
            "shows its loss on them. Evaluate it on tasks: --tasks NAME."
        )
    manifest = subject.store.manifest(subject.data_key)
    if manifest.exists() and not DataManifest.read(manifest).eval_rows:
        raise SweepError(
            f"{subject.key} has no held-out rows to evaluate on: its dataset {subject.data_key} was prepared "
            "without val_set_size and test_datasets. Train with val_set_size=0.05, or evaluate on tasks: --tasks "
            "NAME."
        )


def _stored_folder(store: Store, folder: Path) -> str:
    """Store a folder of task files by its content; returns its path below the store's root."""
    if not folder.is_dir():
        seen = "is not a folder" if folder.exists() else "does not exist"
        raise SweepError(f"--include-path {folder} {seen}; name the folder with your tasks' YAML files.")
    if not any(folder.rglob("*.yaml")):
        raise SweepError(f"--include-path {folder} has no .yaml file; each task is one.")
    return keep_in(store, folder)


def _refuse_unknown(store: Store, names: Sequence[str], include: str | None) -> None:
    """Raises SweepError for tasks that the harness does not know. If this machine has no trainer environment, or the
    check takes too long, the step itself checks before it loads a model."""
    try:
        python = trainer_environment.find()
    except SweepError:
        return
    question = {
        "tasks": list(names),
        "include": None if include is None else str(Path(include).resolve()),
        "index": str(index_in(store)),
    }
    try:
        done = subprocess.run(
            [python, RUN, "tasks"], input=json.dumps(question), capture_output=True, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=LONGEST_ANSWER_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-3:])
        raise SweepError(f"Nothing was started: the tasks could not be looked up. The error:\n{last}")
    unknown: dict[str, list[str]] = json.loads(done.stdout)
    if unknown:
        raise SweepError(f"{said_of(unknown)} Task files of your own are found with --include-path DIR.")


def _shots(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: a whole number, 0 or more, is expected")
    return int(text)
