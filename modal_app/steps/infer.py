"""An infer step: a run, or its base model alone, answers every prompt of a file; the answers are in answers.jsonl.

`options`: prompts, the file below the store's `inputs/`, each line {"messages"}, with an "answer" if one is right;
merged, the key of the merge step whose model answers in place of the run, if any; greedy, max_tokens, temperature and
seed, as `generation.Generation` has them.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.process.attempt import relative_target
from modal_app.process.failures import StepFailed
from modal_app.process.rank import Rank
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import FailureReason, Step, StepKind, write_atomically
from modal_app.store.trained_weights import TrainedWeights, weights_left_by
from modal_app.store.verified import model_damage

SETTINGS = ("greedy", "max_tokens", "temperature", "seed")


def infer(step: Step, store: Store, folder: StepFolder, attempt: Attempt, rank: Rank) -> dict[str, Any]:
    """Write the answers; returns how many prompts there were, how many answers were cut short, and, of the prompts with
    a right answer, how many answers were exactly right. Raises StepFailed."""
    from modal_app.inference import generation

    prompts = [json.loads(line) for line in Path(step.options["prompts"]).read_text(encoding="utf-8").splitlines()]
    loaded = generation.load(step.config, **weights_of(step, store, attempt))
    rank.clock.book("load")
    began = time.monotonic()
    conversations = [prompt["messages"] for prompt in prompts]
    settings = generation.Generation(**{name: step.options[name] for name in SETTINGS if name in step.options})
    answers = generation.answers(loaded, conversations, settings, functools.partial(_note_progress, attempt))
    rank.clock.book("generate")
    rows = list(_rows(prompts, [answer.text for answer in answers], [answer.cut for answer in answers]))
    write_atomically(folder.answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    judged = [row["exact"] for row in rows if "exact" in row]
    return {
        "options": dict(step.options),
        "prompts": len(rows),
        "tokens": sum(answer.tokens for answer in answers),
        "seconds": round(time.monotonic() - began, 3),
        "cut": sum(row["cut"] for row in rows),
        "judged": len(judged),
        "exact": sum(judged),
    }


def weights_of(step: Step, store: Store, attempt: Attempt) -> dict[str, Path]:
    """The arguments of `generation.load`: none for the base model, an adapter, or the weights of a model."""
    if not step.run:
        return {}
    if merged := step.options.get("merged"):
        return {"weights": usable_model(store, store.folder(StepKind.MERGE, merged).model, "config.json", attempt)}
    kind = weights_left_by(step.config)
    model = usable_model(store, store.folder(StepKind.TRAIN, step.run).model, kind.config_file, attempt)
    return {"adapter": model} if kind is TrainedWeights.ADAPTER else {"weights": model}


def usable_model(store: Store, model: Path, file: str, attempt: Attempt) -> Path:
    """The model of a step, as a path from the attempt's folder. `file`: a file that every such model has. Raises
    StepFailed if there is none, or if it is damaged."""
    if not (model / file).exists():
        raise StepFailed(FailureReason.DATA, f"there is no model in {model}: {file} is missing")
    if damage := model_damage(store, model):
        raise StepFailed(FailureReason.DATA, f"the model in {model} is damaged: {damage}")
    return relative_target(attempt.path, model)


def _rows(prompts: Sequence[Mapping[str, Any]], texts: Sequence[str], cut: Sequence[bool]) -> Iterator[dict[str, Any]]:
    for prompt, text, short in zip(prompts, texts, cut, strict=True):
        row = {"messages": prompt["messages"], "output": text, "cut": short}
        if "answer" in prompt:
            row |= {"answer": prompt["answer"], "exact": text == prompt["answer"].strip()}
        yield row


def _note_progress(attempt: Attempt, done: int, of: int) -> None:
    write_atomically(attempt.progress, json.dumps({"done": done, "of": of}))
