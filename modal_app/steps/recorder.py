"""What happens while a run trains, written as it happens: metrics.jsonl (one flushed line per log) and train.json.

It also adds what Axolotl does not do: an evaluation of the untrained and of the final model, the loss of the last
steps, a stop on request or on a loss that is NaN, and exact losses across a resume.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from modal_app.patches.apply import apply_training_patches
from modal_app.process import stop
from modal_app.process.failures import StepFailed
from modal_app.process.rank import Rank
from modal_app.steps.epoch_start import EpochStart
from modal_app.steps.pinned_inputs import check_inputs, check_mapped
from modal_app.steps.row_rater import RowRater
from modal_app.steps.rungs import RungStops, stop_with_checkpoint
from modal_app.store import checkpoints
from modal_app.store.step import FailureReason, write_atomically


class Recorder(TrainerCallback):  # type: ignore[misc]
    """It must be the last callback, so that it sees the decisions of the others."""

    def __init__(self, trainer: Any, rank: Rank, rater: RowRater, *, eval_on_start: bool) -> None:
        self._trainer = trainer
        self._rank = rank
        self._rungs = RungStops(trainer, rank, rater)
        self._epoch_start = EpochStart(trainer)
        self._eval_on_start = eval_on_start
        self._began = 0.0
        self._resumed_from = 0
        self._evaluated_at = -1
        self._limit: int | None = None
        """How many checkpoints the config stores at most."""
        self._saves = 0
        self._stopped = self._diverged = self._ended = False
        self._metrics: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._rank.clock.book("load")
        stop.set_stop_handler(None)
        stop.shield_children()
        expected = self._rank.step.processes
        if args.world_size != expected:
            raise StepFailed(FailureReason.ERROR, f"the world size is {args.world_size}, and {expected} was requested")
        check_inputs(self._rank.step, self._rank.store)  # the model is loaded now
        self._began = time.monotonic()
        self._resumed_from = state.global_step
        self._find_best_checkpoint(args, state)
        self._restore_callbacks(state)
        # The Trainer removes no checkpoint; `_complete_checkpoint` does.
        self._limit, args.save_total_limit = args.save_total_limit or self._limit, None
        apply_training_patches(self._trainer, self._unlogged_at(state.global_step))
        if 0 < state.max_steps <= state.global_step:
            raise StepFailed(
                FailureReason.CONFIG,
                f"it starts from step {state.global_step} and ends at step {state.max_steps}, so nothing is left to "
                "train: max_steps and num_epochs count from the beginning of the run that its checkpoint is of",
            )
        # The attempt that saved a checkpoint has evaluated that step. A start checkpoint was evaluated by another run,
        # so this run evaluates it before its first step.
        begins = state.global_step == (self._rank.origin_step or 0)
        args.eval_on_start = begins and self._eval_on_start and self._has_eval_rows()
        if state.is_world_process_zero:
            self._metrics = _open_for_lines(self._rank.folder.metrics)
            self._write_state(state)
        try:
            self._rungs.begin(state)
        finally:
            self._write_state(state)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        """Let a sampler pack its rows again. In the epoch in which a run resumes, the Trainer does not reach it behind
        the samplers that skip batches and share them among ranks, and it would have packed in another order than before
        the kill: some rows would be trained on twice, and others not at all."""
        resumes = 0 < state.global_step == self._resumed_from
        self._epoch_start.begin(state.epoch or 0.0, _checkpoint(args, state.global_step) if resumes else None)
        sampler = train_dataloader
        while (sampler := getattr(sampler, "batch_sampler", None)) is not None:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The first step warms up and compiles, so its duration says nothing about the next ones.
        self._rank.clock.book("first" if state.global_step == self._resumed_from + 1 else "train")
        last = control.should_training_stop  # after all steps, or because another callback ends it
        if last and self._has_eval_rows():
            control.should_evaluate = True
        if not last and self._agree_to_stop(args):
            self._stop(args, control)
        if not (last or self._stopped):
            self._rungs.after_step(args, state, control)
            self._stop_unanswered(args, control)

    def _find_best_checkpoint(self, args: Any, state: Any) -> None:
        """A checkpoint names the best checkpoint by its path in the attempt that saved it, and on Modal each attempt
        has a folder of its own. The Trainer ignores a path that does not exist, and would store the last weights
        instead."""
        best = _checkpoint(args, state.best_global_step)
        is_own = (state.best_global_step or 0) > (self._rank.origin_step or 0)
        if state.best_model_checkpoint is None and is_own and best.is_dir():
            state.best_model_checkpoint = str(best)

    def _restore_callbacks(self, state: Any) -> None:
        """A checkpoint has what callbacks have counted, such as evaluations without an improvement. The Trainer does
        not restore that, and cannot save a callback that the checkpoint of another run does not have."""
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                saved = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
                if isinstance(saved, Mapping):  # a list if there are several of a class
                    for name, value in saved["attributes"].items():
                        setattr(callback, name, value)

    def _stop(self, args: Any, control: Any) -> None:
        self._stopped = True
        stop_with_checkpoint(self._rank, args, control)

    def _stop_unanswered(self, args: Any, control: Any) -> None:
        """The process that has to answer may have got the request to stop, too. So the run asks again when it is
        continued."""
        if self._rungs.unanswered:
            self._rungs.unanswered = False
            if self._agree_to_stop(args):
                self._stop(args, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._evaluated_at == state.global_step:
            control.should_evaluate = False
        if not self._stopped:
            self._rungs.after_epoch(args, state, control)
        elif not float(state.epoch).is_integer():  # it has been cut short, and everything is saved
            control.should_evaluate = control.should_save = False
        if control.should_training_stop and not self._rank.to_be_continued:
            control.should_log = True  # the steps since the last log line, if there are any

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" in logs:
            self._rank.clock.book("train")
        elif "eval_loss" not in logs:
            return  # the summary at the end
        if any(not math.isfinite(logs[name]) for name in ("loss", "eval_loss") if name in logs):
            self._diverged = True  # the next steps are useless, and may cost money
            control.should_training_stop = True
        if self._metrics is not None:
            self._write_metrics(state, logs)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        self._rank.clock.book("eval")
        self._evaluated_at = state.global_step
        if not control.should_training_stop:
            self._rungs.after_evaluation(args, state, control, (metrics or {}).get("eval_loss"))
            self._stop_unanswered(args, control)
        self._write_state(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        unlogged = self._unlogged(args)
        check_mapped(self._rank.step, self._rank.store)
        self._epoch_start.save(_checkpoint(args, state.global_step))
        if args.world_size > 1:
            torch.distributed.barrier()  # every rank has written its part
        if state.is_world_process_zero:
            self._complete_checkpoint(args, state, control, unlogged)
        self._rank.clock.book("save")
        self._saves += 1
        self._write_state(state)

    def _complete_checkpoint(self, args: Any, state: Any, control: Any, unlogged: Mapping[str, float]) -> None:
        """Mark the newest checkpoint, and only then remove others. The Trainer would remove them before, so that a kill
        in between could leave none, and by their time stamps, which a clock that is set back makes wrong."""
        checkpoint = _checkpoint(args, state.global_step)
        if missing := self._missing_in(checkpoint):
            print(f"axosweep: no run can resume from {checkpoint.name}, since its {missing} was not saved", flush=True)
        else:
            ends = control.should_training_stop and not self._rank.to_be_continued
            checkpoints.mark_complete(checkpoint, unlogged, ends=ends)
        rotate_checkpoints(args.output_dir, self._limit, state.best_model_checkpoint)

    def _missing_in(self, checkpoint: Path) -> str:
        """A file without which the Trainer does not resume, or begins with a new optimizer and schedule, without a
        message. Axolotl only warns where it cannot save them under FSDP. DeepSpeed saves its own."""
        needed = [TRAINER_STATE_NAME]
        if not (self._trainer.args.save_only_model or self._trainer.is_deepspeed_enabled):
            needed.append(SCHEDULER_NAME)  # saved after the optimizer's state
        return next((name for name in needed if not (checkpoint / name).exists()), "")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._rank.clock.book("train")
        self._ended = True
        self._write_state(state)
        if self._metrics is not None:
            self._metrics.close()

    def _has_eval_rows(self) -> bool:
        return bool(self._trainer.eval_dataset)

    def _agree_to_stop(self, args: Any) -> bool:
        """All ranks stop after the same step, though the signal reaches them at different times."""
        if args.world_size == 1:
            return stop.requested()
        requested = torch.tensor(float(stop.requested()), device=args.device)
        torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX)
        return bool(requested.item())

    def _unlogged(self, args: Any) -> dict[str, float]:
        """The summed loss since the last log line, averaged over the ranks: a resumed run continues with it."""
        total = self._trainer._tr_loss.detach().clone().float()
        if args.world_size > 1:
            torch.distributed.all_reduce(total)
            total /= args.world_size
        return {"since": self._trainer._globalstep_last_logged, "loss": total.item()}

    def _unlogged_at(self, step: int) -> Mapping[str, Any] | None:
        """As saved with the checkpoint that this attempt resumes from; None at the beginning."""
        return checkpoints.unlogged(_checkpoint(self._trainer.args, step)) if step else None

    def _write_metrics(self, state: Any, logs: dict[str, Any]) -> None:
        line = {
            "attempt": self._rank.attempt.number,
            "step": state.global_step,
            "epoch": state.epoch,
            "time": round(time.time(), 3),
            "seconds": round(time.monotonic() - self._began, 3),
        }
        numbers = {name: value for name, value in logs.items() if isinstance(value, (int, float)) and name != "epoch"}
        if "tokens/trainable" in numbers:
            line["tokens"] = numbers["tokens/trainable"]
        strange = sorted(name for name, value in numbers.items() if not math.isfinite(value))
        if strange:  # JSON has no NaN
            line["not_finite"] = strange
        finite = {name: None if name in strange else value for name, value in numbers.items()}
        self._metrics.write(json.dumps(line | finite) + "\n")
        self._metrics.flush()

    def _write_state(self, state: Any) -> None:
        if not state.is_world_process_zero:
            return
        early = state.global_step < state.max_steps and not (self._stopped or self._diverged or self._rungs.stop)
        write_atomically(
            self._rank.attempt.train_state,
            json.dumps(
                {
                    "global_step": state.global_step,
                    "max_steps": state.max_steps,
                    "world_size": self._trainer.args.world_size,
                    "threads": torch.get_num_threads(),
                    "phases": self._rank.clock.seconds,
                    "cpu": self._rank.clock.cpu,
                    "saves": self._saves,
                    "ended": self._ended,
                    "stopped": self._stopped,
                    "diverged": self._diverged,
                    "at_rung": self._rungs.stop,
                    "rungs": self._rungs.answers,
                    "early_stopped": self._ended and early,
                    "resumed_from": self._resumed_from,
                    "eval_fingerprint": self._rank.eval_fingerprint,
                    "no_row_losses": self._rank.no_row_losses,
                }
            ),
            durable=self._ended or not self._rank.store.is_mounted,  # no step waits for a Volume
        )


def _checkpoint(args: Any, step: int | None) -> Path:
    return Path(args.output_dir) / f"{checkpoints.PREFIX}{step}"


def _open_for_lines(path: Path) -> Any:
    """Open a file of lines to append to it; a line that a kill has cut off is ended first."""
    file = path.open("a+b")
    if file.tell() and _last_byte(file) != b"\n":
        file.write(b"\n")
    file.close()
    return path.open("a", encoding="utf-8")


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last
