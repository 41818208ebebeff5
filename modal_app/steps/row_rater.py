"""Writes the loss of each held-out row at every evaluation, from the batches that the Trainer evaluates anyway.

It changes nothing that the Trainer computes. If the losses are not available, no file is written, and the reason is
recorded (`no_row_losses`).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from transformers import TrainerCallback

from modal_app.held_out.held_out import HeldOut
from modal_app.held_out.row_losses import About, RowLosses
from modal_app.process.rank import Rank
from modal_app.steps.batch_rows import KnownRows, find_rows
from modal_app.steps.rated_rows import LEFT_OUT, RatedRow, by_turn, missing_rows, row_losses
from modal_app.steps.token_losses import logits_of, losses_of_another_pass, token_losses
from modal_app.store import checkpoints
from modal_app.store.layout import HELD_OUT
from modal_app.store.step import StepKind

PREFERENCES = "the loss compares or scores answers, so a row has no likelihood of its own"
REWARDS = ("rl", "reward_model", "process_reward_model")
COLUMNS = ("input_ids", "labels", "position_ids", "attention_mask")
TOLERANCE, OF_A_TOKEN = 0.02, 0.1
"""How far the mean over the tokens of a batch may be from the loss that the model gives, relative to it, and in nats of
a single token: a fused loss does not round its logits, those of another pass are rounded to 16 bits."""


class RowRater(TrainerCallback):  # type: ignore[misc]
    """A callback that comes before the recorder, which writes down what this one has found out."""

    def __init__(self, trainer: Any, rank: Rank, *, without: str | None) -> None:
        """`without`: why this run has no such losses, if that is known already."""
        self._trainer = trainer
        self._rank = rank
        self._known: KnownRows | None = None
        self._rated: list[RatedRow] = []
        self._batches = 0
        self._at: int | None = None
        self.newest: RowLosses | None = None
        """Of the last evaluation that callbacks have seen."""
        self._model: Any = None
        """That was evaluated last."""
        self._gave_up = False
        """Whether this rank has given up, and the others may not know it yet."""
        rank.no_row_losses = without

    def see_batch(self, model: Any, inputs: Mapping[str, Any], outputs: Any, loss: Any, items: Any) -> None:
        """Compute the losses of one evaluated batch (`patches.training.show_evaluated_batches`)."""
        batch = self._batches * self._trainer.args.world_size + self._trainer.args.process_index
        self._batches += 1
        if self._rank.no_row_losses is not None:
            self._pass_with_the_others(model, inputs, outputs)
            return
        self._model = model
        try:
            losses = self._token_losses(model, inputs, outputs)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._give_up("the memory did not suffice for the logits of a batch")
            return
        if losses is None:
            self._give_up("the model gives no logits")
        elif strange := self._difference(losses, inputs["labels"], outputs, loss, items):
            self._give_up(strange)
        else:
            self._note_rows(inputs, losses.cpu().numpy().astype(np.float64), batch)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        self.newest = self.take(state.global_step, metrics)
        if self.newest is not None:
            folder = self._rank.folder
            self.newest.write(folder.losses_before if self._begins(state) else folder.losses)
            self._at = state.global_step

    def take(self, at_step: int, metrics: Mapping[str, Any] | None) -> RowLosses | None:
        """The losses of the rows that were evaluated since the last call. None on ranks other than 0, and if they are
        not available. All ranks call it together."""
        rated, self._rated, self._batches, self._gave_up = self._rated, [], 0, False
        reasons, all_rated = self._from_all_ranks(rated)
        self._rank.no_row_losses = next((reason for reason in reasons if reason is not None), None)
        if self._rank.no_row_losses is not None or self._rank.number != 0:
            return None
        loss = float((metrics or {}).get("eval_loss", math.nan))
        step = at_step if self._rank.weights_step is None else self._rank.weights_step
        about = About(self._rows.fingerprint, step, loss, (), documents_known=False)
        losses = row_losses(self._rows, [*all_rated, *self._left_out(all_rated)], about)
        if losses is None:
            self._give_up("the evaluation left out held-out rows")
            return None
        return losses if self._held_out is None else self._held_out.describe(losses)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        best = args.load_best_model_at_end and state.best_global_step == state.global_step
        if best and self._at == state.global_step and self._rank.number == 0:
            losses = RowLosses.read(self._rank.folder.losses)
            if losses is not None and losses.about.step == state.global_step:
                losses.write(self._rank.folder.losses_best)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The Trainer has loaded its best weights by now."""
        if self._rank.number != 0 or self._rank.to_be_continued:
            return
        folder = self._rank.folder
        if self._rank.no_row_losses is not None:
            folder.losses.unlink(missing_ok=True)  # it is from an earlier evaluation
        elif args.load_best_model_at_end and state.best_model_checkpoint is not None:
            best = RowLosses.read(folder.losses_best)
            if best is not None and best.about.step == checkpoints.step_number(Path(state.best_model_checkpoint)):
                folder.losses_best.replace(folder.losses)
            else:  # the existing losses belong to other weights
                folder.losses.unlink(missing_ok=True)
        folder.losses_best.unlink(missing_ok=True)

    def _begins(self, state: Any) -> bool:
        """Whether these are the weights that training begins with."""
        trains = self._rank.step.kind is StepKind.TRAIN
        return trains and state.global_step == (self._rank.origin_step or 0)

    @property
    def _rows(self) -> KnownRows:
        if self._known is None:
            self._known = KnownRows.of(self._trainer.eval_dataset)
        return self._known

    @functools.cached_property
    def _held_out(self) -> HeldOut | None:
        """The held-out rows as recorded with the prepared dataset. A run that reads its own data has no such record,
        and earlier versions have written none."""
        dataset = self._rank.store.prepared_dataset(self._rank.step.data_key)
        return HeldOut.read(dataset / HELD_OUT, texts_of=())

    def _left_out(self, rated: Sequence[RatedRow]) -> list[RatedRow]:
        """Compute the losses of the rows that the evaluation has left out: packed batches that do not divide among the
        ranks are dropped. Nothing is computed if these are most rows, or if one rank alone cannot do it."""
        missing = missing_rows(self._rows, rated)
        if self._sharded or 2 * len(missing) > len(self._rows.keys):
            return []
        return [one for at, key in missing if (one := self._rated_alone(at, key)) is not None]

    def _rated_alone(self, at: int, key: bytes) -> RatedRow | None:
        row, device = self._trainer.eval_dataset[at], self._trainer.args.device
        columns = {name: torch.tensor([row[name]], device=device) for name in COLUMNS if name in row}
        with torch.no_grad(), self._trainer.compute_loss_context_manager():
            losses = self._token_losses(self._model, columns, self._model(**columns))
        if losses is None:
            return None
        counts, sums = by_turn(np.array(row["labels"][1:]), losses[0, 1:].cpu().numpy().astype(np.float64))
        return RatedRow(key, LEFT_OUT, len(row["labels"]), counts, sums)

    @property
    def _sharded(self) -> bool:
        """Whether all ranks must pass through the model equally often."""
        trainer = self._trainer
        by_dimension = trainer.accelerator.parallelism_config is not None  # tensor or context parallelism, too
        return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled or by_dimension)

    def _give_up(self, reason: str) -> None:
        self._rank.no_row_losses = reason
        self._rated, self._gave_up = [], True
        print(f"axosweep: no losses by held-out row: {reason}", flush=True)

    def _token_losses(self, model: Any, inputs: Mapping[str, Any], outputs: Any) -> torch.Tensor | None:
        labels = inputs["labels"]
        logits = logits_of(outputs, labels)
        if logits is not None:
            return token_losses(logits, labels)
        return losses_of_another_pass(model, inputs, at_once=self._sharded)

    def _pass_with_the_others(self, model: Any, inputs: Mapping[str, Any], outputs: Any) -> None:
        """Ranks with this batch would wait forever for a rank that does not pass through a sharded model."""
        if self._gave_up and self._sharded and logits_of(outputs, inputs["labels"]) is None:
            with contextlib.suppress(torch.OutOfMemoryError):  # which may be why it has given up
                losses_of_another_pass(model, inputs, at_once=True)

    def _difference(
        self, losses: torch.Tensor, labels: torch.Tensor, outputs: Any, loss: Any, items: Any
    ) -> str | None:
        """A message if the model's own loss is not their mean: some models count other tokens."""
        trainer = self._trainer
        smoothed = trainer.label_smoother is not None or trainer.compute_loss_func is not None
        if smoothed or getattr(outputs, "aux_loss", None) is not None:
            return None
        total, own = float(losses.double().sum()), float(loss.detach().float().mean())
        count = float((labels[:, 1:] != -100).sum())
        if items is not None and trainer.model_accepts_loss_kwargs:
            count = float(torch.as_tensor(items).float().mean())
            if trainer.args.average_tokens_across_devices:
                count /= trainer.accelerator.num_processes // trainer.get_tp_size()
        if not count or not math.isfinite(own) or is_near(total / count, own, count):
            return None
        return f"the model's loss of a batch is {own:.6g}, and the mean over its tokens {total / count:.6g}"

    def _note_rows(self, inputs: Mapping[str, Any], losses: NDArray[np.float64], batch: int) -> None:
        tokens, labels, positions, mask = (_matrix(inputs.get(name)) for name in COLUMNS)
        assert tokens is not None
        assert labels is not None
        found = find_rows(self._rows.counts, tokens, labels, positions, mask)
        if found is None:
            self._give_up("a batch has rows that the prepared dataset does not have")
            return
        for row in found:
            part = slice(row.start + 1, row.end)
            counts, sums = by_turn(labels[row.sequence, part], losses[row.sequence, part])
            self._rated.append(RatedRow(row.key, batch, row.end - row.start, counts, sums))

    def _from_all_ranks(self, rated: list[RatedRow]) -> tuple[list[str | None], list[RatedRow]]:
        mine = (self._rank.no_row_losses, rated)
        every = [mine]
        if self._trainer.args.world_size > 1:
            every = [mine] * self._trainer.args.world_size
            torch.distributed.all_gather_object(every, mine)
        return [reason for reason, _ in every], [row for _, rows in every for row in rows]


def reason_without_losses(rows: Any, config: Mapping[str, Any]) -> str | None:
    """Why such an evaluation gives no per-row losses; None if it does."""
    if any(config.get(name) for name in REWARDS):
        return PREFERENCES
    if not isinstance(rows, datasets.Dataset):
        return (
            "there are no held-out rows" if not rows else "the held-out rows are not stored, they are read as a stream"
        )
    if not {"input_ids", "labels"} <= set(rows.column_names):
        return "the held-out rows are tokenized while the run trains, so they have no ids"
    return None


def is_near(mean: float, own: float, tokens: float) -> bool:
    """Whether the mean over so many tokens is the model's own loss, except for rounding, which averages out."""
    return abs(mean - own) <= TOLERANCE * abs(own) + OF_A_TOKEN / math.sqrt(tokens)


def _matrix(value: Any) -> NDArray[np.int64] | None:
    """A batch's column; None where it has none, or one that is not sequences x tokens."""
    if not isinstance(value, torch.Tensor) or value.ndim != 2:
        return None
    matrix: NDArray[np.int64] = value.cpu().numpy().astype(np.int64)
    return matrix
