"""Trainings of one weight by transformers' own Trainer, with the recorder as its last callback.

Prints what each leaves. Run with the trainer's Python and this checkout in PYTHONPATH: `python recorder_script.py
FOLDER`. Each training is a fork, since a request to stop is a fact about a process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from axolotl.core.trainers.mixins import CheckpointSaveMixin
from axolotl.utils.dict import DictDefault
from axolotl.utils.samplers import MultipackBatchSampler
from torch.utils.data import DataLoader, Dataset, RandomSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from modal_app.halving.entries import TERMS, FileEntries, entries_folder
from modal_app.halving.snapshot import Terms
from modal_app.patches.apply import apply_run_patches
from modal_app.process import ranks
from modal_app.process.forked import leave
from modal_app.process.rank import Rank, become
from modal_app.steps.plugin import AxosweepPlugin
from modal_app.steps.recorder import Recorder
from modal_app.steps.row_rater import RowRater
from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.lines import read_lines
from modal_app.store.rungs import Rungs
from modal_app.store.step import Step, StepKind

STEP = Step(StepKind.TRAIN, "run", {}, "data")
ROWS = [{"labels": torch.zeros(1)}] * 20
"""Ten steps, once through."""
NUMBERS = 20
BEST: dict[str, Any] = {"load_best_model_at_end": True, "save_steps": 2}


class Weight(torch.nn.Module):  # type: ignore[misc]
    """Its learning rate is so high that the loss rises with each step: the first evaluation is the best."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, labels: Any) -> dict[str, Any]:
        return {"loss": ((self.weight - labels) ** 2).mean()}


class OptimizerNotSaved(Trainer):  # type: ignore[misc]
    """As accelerate for some optimizers under FSDP."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        raise KeyError("exp_avg")


class Sharded(CheckpointSaveMixin, OptimizerNotSaved):  # type: ignore[misc]
    pass


class Numbers(Dataset[Any]):  # type: ignore[misc]
    """A packed row is the sum of powers of two, which says which numbers they are of."""

    def __len__(self) -> int:
        return NUMBERS

    def __getitem__(self, row: list[int]) -> dict[str, float]:
        return {"labels": float(sum(2**number for number in row))}


class Noting(Trainer):  # type: ignore[misc]
    """Notes the sum of what each step gets."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.given: list[float] = []

    def training_step(self, model: Any, inputs: Any, items: Any = None) -> Any:
        self.given.append(inputs["labels"].sum().item())
        return super().training_step(model, inputs, items)


class Packing(Noting):
    """Packs two numbers into a row, as Axolotl's trainer packs rows."""

    def get_train_dataloader(self) -> Any:
        sampler = packed()
        len(sampler)  # as Axolotl does, before accelerate gives it another order
        return self.accelerator.prepare(DataLoader(Numbers(), batch_sampler=sampler))


def packed() -> MultipackBatchSampler:
    lengths = np.ones(NUMBERS)
    return MultipackBatchSampler(RandomSampler(range(NUMBERS)), 1, 2, lengths, bin_size=2, sequential=True)


class At(TrainerCallback):  # type: ignore[misc]
    """Does something at the end of a step, before the recorder sees it."""

    def __init__(self, step: int, act: Callable[[Any], None]) -> None:
        self._step, self._act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            self._act(control)


class Saved(TrainerCallback):  # type: ignore[misc]
    """The complete checkpoints before the newest one is declared complete."""

    def __init__(self) -> None:
        self.found: list[list[int]] = []

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.found.append(complete(Path(args.output_dir)))


def complete(model: Path) -> list[int]:
    return [checkpoints.step_number(one) for one in checkpoints.all_checkpoints(model) if checkpoints.is_complete(one)]


def trained(
    root: Path,
    *callbacks: Any,
    step: Step = STEP,
    kind: Any = Trainer,
    attempt: int = 1,
    rows: Any = ROWS,
    **arguments: Any,
) -> dict[str, Any]:
    """What a training leaves, from its newest usable checkpoint on."""
    store = Store(root)
    folder = store.folder(step.kind, step.key)
    rank = Rank(step, folder, folder.attempt(attempt))
    rank.attempt.path.mkdir(parents=True, exist_ok=True)
    model = folder.model
    defaults = {
        "max_steps": 10, "per_device_train_batch_size": 2, "logging_steps": 1, "eval_strategy": "steps",
        "eval_steps": 2, "save_strategy": "steps", "save_steps": 100, "learning_rate": 1.01,
        "optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "metric_for_best_model": "loss",
        "report_to": [], "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    settings = TrainingArguments(str(model), **{**defaults, **arguments})
    trainer = kind(Weight(), settings, train_dataset=rows, eval_dataset=rows[:2], callbacks=list(callbacks))
    rater = RowRater(trainer, rank, without="a weight has no rows")
    for one in (rater, Recorder(trainer, rank, rater, eval_on_start=False)):
        trainer.add_callback(one)
    taken = checkpoints.set_aside_unusable(model)
    trainer.train(resume_from_checkpoint=None if taken is None else str(taken))
    state = json.loads(rank.attempt.train_state.read_text())
    lines = read_lines(folder.metrics)
    return {
        **{name: state[name] for name in ("global_step", "stopped", "early_stopped", "saves", "at_rung")},
        "taken": taken and checkpoints.step_number(taken),
        "complete": complete(model),
        "given": getattr(trainer, "given", None),
        "logged": [line["step"] for line in lines if "loss" in line],
        "evaluated": [line["step"] for line in lines if "eval_loss" in line],
    }


def stop(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def halt(control: Any) -> None:
    control.should_training_stop = True


def stopped_where_nothing_is_best(root: Path) -> dict[str, Any]:
    return trained(root, At(4, stop), save_strategy="best")


def stopped_with_one_checkpoint_to_store(root: Path) -> dict[str, Any]:
    return trained(root, At(5, stop), save_total_limit=1, **BEST)


def stopped_in_an_epoch(root: Path) -> dict[str, Any]:
    return trained(root, At(5, stop), save_strategy="epoch")


def logged_seldom(root: Path) -> dict[str, Any]:
    return trained(root, logging_steps=4)


def halted(root: Path) -> dict[str, Any]:
    return trained(root, At(5, halt), logging_steps=4)


def rotated(root: Path) -> dict[str, Any]:
    saved = Saved()
    limit: dict[str, Any] = {"save_steps": 2, "save_total_limit": 1, "metric_for_best_model": None}
    return trained(root, saved, max_steps=6, **limit) | {"before": saved.found}


def rotated_by_a_clock_that_was_set_back(root: Path) -> dict[str, Any]:
    def set_back(_: Any) -> None:
        for one in Store(root).folder(STEP.kind, STEP.key).model.glob("checkpoint-*"):
            os.utime(one, (time.time() + 600,) * 2)

    return trained(root, At(3, set_back), save_steps=2, save_total_limit=1, max_steps=6)


def without_optimizer(root: Path) -> dict[str, Any]:
    return trained(root, kind=Sharded, save_steps=2, max_steps=4)


def killed_after_a_bad_evaluation(root: Path) -> list[dict[str, Any]]:
    """The second one goes on as if the first had been killed after step 4, and the third as if the second had been
    killed before it could record its end."""
    model = Store(root).folder(STEP.kind, STEP.key).model

    def patient(attempt: int) -> dict[str, Any]:
        return trained(root, EarlyStoppingCallback(2), attempt=attempt, **BEST)

    first = patient(1)
    shutil.rmtree(model / "checkpoint-6")
    return [first, patient(2), patient(3)]


def from_a_run_without_patience(root: Path) -> dict[str, Any]:
    """As a start checkpoint (from=) has it: with the state of no callback but the control's."""
    first = trained(root, save_steps=2, max_steps=2)
    checkpoint = Store(root).folder(STEP.kind, STEP.key).model / "checkpoint-2"
    file = checkpoint / "trainer_state.json"
    state = json.loads(file.read_text())
    control = {"TrainerControl": state["stateful_callbacks"]["TrainerControl"]}
    file.write_text(json.dumps({**state, "max_steps": 0, "stateful_callbacks": control}))
    checkpoints.mark_complete(checkpoint, {})
    assert first["complete"] == [2]
    return trained(root, EarlyStoppingCallback(3), attempt=2, max_steps=6, **BEST)


def ended_at_a_rung(root: Path) -> dict[str, Any]:
    """Its search would stop it there."""
    rungs = Rungs("sweep/search", (0.6,), eta=3, audit=False)
    terms = Terms({STEP.key: 1.5, "absent": 1.0}, rungs.fractions, rungs.eta, audit=False)
    FileEntries(entries_folder(Store(root), rungs.search)).put(TERMS, terms.to_json())
    return trained(root, EarlyStoppingCallback(2), step=replace(STEP, rungs=rungs), **BEST)


def grouped_rows(root: Path) -> list[list[float]]:
    """What a run gets in each of 20 steps, two epochs, and in those after it has resumed from step 13, and from 10."""
    rows = [{"labels": torch.tensor([2.0**number]), "input_ids": [0] * (number % 3)} for number in range(NUMBERS)]
    model = Store(root).folder(STEP.kind, STEP.key).model
    found = []
    for attempt, resumed_from in enumerate((None, 13, 10), start=1):
        for checkpoint in checkpoints.all_checkpoints(model):
            if checkpoints.step_number(checkpoint) > (resumed_from or 0):
                shutil.rmtree(checkpoint)
        left = trained(
            root, kind=Noting, rows=rows, attempt=attempt, train_sampling_strategy="group_by_length",
            max_steps=20, save_steps=1, eval_steps=3,
        )  # fmt: skip
        assert left["taken"] == resumed_from
        found.append(left["given"])
    return found


def packed_rows_of_two_ranks(root: Path) -> list[list[float]]:
    """What rank 0 gets in each of ten steps, which are two epochs, and in those after it has resumed from step 6."""
    list(packed())  # compiles it for both
    first, second = ranks._environments(2)
    if not os.fork():
        try:
            _of_a_rank(second, root)
        finally:
            leave(0)
    return _of_a_rank(first, root)


def _of_a_rank(environment: dict[str, str], root: Path) -> list[list[float]]:
    os.environ |= environment | {"ACCELERATE_USE_CPU": "true"}
    step = replace(STEP, processes=2)
    undisturbed = trained(root, kind=Packing, step=step, save_steps=3)
    torch.distributed.barrier()
    if environment["RANK"] == "0":
        for number in (9, 10):
            shutil.rmtree(Store(root).folder(step.kind, step.key).model / f"checkpoint-{number}")
    torch.distributed.barrier()
    resumed = trained(root, kind=Packing, step=step, save_steps=3, attempt=2)
    assert resumed["taken"] == 6
    return [undisturbed["given"], resumed["given"]]


def drawn_for_the_number_of_steps(root: Path) -> list[float]:
    """By two processes, which begin with random states of their own."""
    folder = Store(root).folder(STEP.kind, STEP.key)
    step = replace(STEP, config={"streaming": True})
    become(Rank(step, folder, folder.attempt(1))).attempt.path.mkdir(parents=True)
    drawn = []
    for _ in range(2):
        torch.seed()
        AxosweepPlugin().load_datasets(DictDefault({"seed": 42}))
        drawn.append(torch.rand(1).item())
    return drawn


CASES = (
    stopped_where_nothing_is_best, stopped_with_one_checkpoint_to_store, stopped_in_an_epoch, logged_seldom, halted,
    rotated, rotated_by_a_clock_that_was_set_back, without_optimizer, killed_after_a_bad_evaluation,
    from_a_run_without_patience, ended_at_a_rung, packed_rows_of_two_ranks,
    grouped_rows,
    drawn_for_the_number_of_steps,
)  # fmt: skip


def of_a_fork(case: Callable[[Path], Any], root: Path) -> Any:
    """What a case returns, or the error that it ends with."""
    root.mkdir()
    answer = root / "answer.json"
    if pid := os.fork():
        os.waitpid(pid, 0)
        return json.loads(answer.read_text())
    try:
        answer.write_text(json.dumps(case(root)))
    except Exception as error:  # the boundary of a fork: its parent reads the error
        traceback.print_exc()
        answer.write_text(json.dumps(repr(error)))
    finally:
        leave(0)


if __name__ == "__main__":
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the trainings print is not part of the answer
    apply_run_patches(STEP)  # otherwise each training would import DeepSpeed
    json.dump({case.__name__: of_a_fork(case, Path(sys.argv[1]) / case.__name__) for case in CASES}, output)
    output.flush()
