"""What a run does at the rungs of its search: it reports what it has reached, and goes on or stops with a checkpoint.

If the config evaluates at a rung's step anyway, that evaluation is taken. Otherwise there is one more, which leaves no
trace: no callback sees it, nothing is logged, and every random state is as it was before.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modal_app.halving.asking import Asks, asks_of
from modal_app.halving.ends import DIVERGED, recorded_losses, setting_of
from modal_app.halving.halve import Answer
from modal_app.halving.margin import GROUPS
from modal_app.halving.snapshot import Reading, Why
from modal_app.held_out.row_losses import RowLosses
from modal_app.process import stop
from modal_app.process.rank import Rank
from modal_app.process.stop import AtRung
from modal_app.steps.row_rater import RowRater
from modal_app.store.facts import DataManifest

WORSE_BY = 1.5
"""As `compare` flags it: a held-out loss above this many times its first value has diverged."""
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads ids that lie close together (Knuth's multiplicative hash)."""


class RungStops:
    """One for each rank. All ranks call the same methods at the same steps, and rank 0 asks."""

    def __init__(self, trainer: Any, rank: Rank, rater: RowRater) -> None:
        self._trainer = trainer
        self._rank = rank
        self._rater = rater
        self._asks = asks_of(rank.step, rank.store, rank.folder, rank.attempt, stop.requested)
        self._first: float | None = None
        """The run's first held-out loss."""
        self._passed = 0
        """The last rung that was asked at."""
        self.answers: list[dict[str, Any]] = []
        """Of this attempt, for train.json."""
        self.unanswered = False
        """Whether no answer came at this rung."""
        self.stop: dict[str, Any] | None = None
        """Once the run is to stop: the facts of the outcome."""

    def begin(self, state: Any) -> None:
        """Training begins, or resumes. Raises AtRung if it resumes at a rung and does not go on. One that stopped there
        and now goes on is not evaluated again."""
        recorded = [loss for loss in recorded_losses(self._rank.folder.metrics).values() if loss is not None]
        self._first = recorded[0] if recorded else None
        rung = self._rung_to_ask_at(state)
        if not rung or state.global_step <= (self._rank.origin_step or 0):
            return
        if self._from_first_rank(lambda asks: asks.known(rung)) is None:
            self._ask_unseen(state)
            if self.stop is not None:
                raise AtRung(self.stop)
        self._passed = rung

    def after_step(self, args: Any, state: Any, control: Any) -> None:
        """Called before the Trainer logs, evaluates and saves."""
        if self._rung_to_ask_at(state) and not (control.should_evaluate or _more_follows(args, state)):
            self._ask_unseen(state)
            self._act(args, control)

    def after_epoch(self, args: Any, state: Any, control: Any) -> None:
        if self.stop is not None:  # after_step has saved everything; an epoch that is cut short has no end
            control.should_evaluate = control.should_save = False
        elif self._rung_to_ask_at(state) and not control.should_evaluate:
            self._ask_unseen(state)
            self._act(args, control)

    def after_evaluation(self, args: Any, state: Any, control: Any, loss: float | None) -> None:
        """`loss`: of the evaluation that the config asks for."""
        if self._rung_to_ask_at(state):
            self._ask(state, loss, self._rater.newest)
            self._act(args, control)
        elif loss is not None and self._has_diverged(loss) and (rung := self._next_rung(state)):
            self._ask(state, None, None, rung)
            self._act(args, control)
        if self._first is None:
            self._first = loss

    def _act(self, args: Any, control: Any) -> None:
        if self.stop is not None:
            stop_with_checkpoint(self._rank, args, control)

    def _steps(self, state: Any) -> tuple[int, ...]:
        rungs = self._rank.step.rungs
        return rungs.steps(state.max_steps) if rungs else ()

    def _rung_to_ask_at(self, state: Any) -> int:
        """The rung at this step, unless the run has already asked there; 0 if there is none."""
        rungs = self._rank.step.rungs
        rung = rungs.at(state.global_step, state.max_steps) if rungs else 0
        has_asked = rung <= self._passed or self.stop is not None or not self._trainer.eval_dataset
        return 0 if has_asked else rung

    def _next_rung(self, state: Any) -> int:
        """The first rung that is still to come; 0 if there is none."""
        steps = self._steps(state)
        return next((rung for rung, step in enumerate(steps, start=1) if step > state.global_step), 0)

    def _ask_unseen(self, state: Any) -> None:
        with unseen_evaluation(self._trainer):
            before, metrics = self._rank.no_row_losses, self._trainer.evaluate()
            losses = self._rater.take(state.global_step, metrics)
            self._rank.no_row_losses = before
        self._rank.clock.book("eval")
        self._ask(state, metrics.get("eval_loss"), losses)

    def _ask(self, state: Any, loss: float | None, losses: RowLosses | None, rung: int = 0) -> None:
        """`rung`: the next one, for a run that has diverged."""
        here = self._rung_to_ask_at(state)
        self._passed = here or self._passed
        if loss is None and not rung:
            return  # the evaluation has no single loss, so runs cannot be compared
        diverged = loss is None or not math.isfinite(loss) or self._has_diverged(loss)
        reading = self._reading(state, None if diverged else loss, losses)
        answer = self._from_first_rank(lambda asks: asks.ask(rung or here, reading))
        assert answer is not None
        self.unanswered = answer.why is Why.UNANSWERED
        noted = {"rung": rung or here, "step": state.global_step, "loss": reading.loss, **asdict(answer)}
        self.answers.append(noted)
        if not answer.goes_on:
            assert self._rank.step.rungs is not None
            self.stop = {
                "search": self._rank.step.rungs.search,
                "rung": rung or here,
                "rungs": len(self._rank.step.rungs.fractions),
                "step": state.global_step,
                "max_steps": state.max_steps,
                "place": answer.place,
                "of": answer.of,
                "why": DIVERGED if diverged else "",
            }

    def _from_first_rank(self, ask: Callable[[Asks], Answer | None]) -> Answer | None:
        assert self._asks is not None
        answer = [ask(self._asks) if self._rank.number == 0 else None]
        if self._trainer.args.world_size > 1:
            torch.distributed.broadcast_object_list(answer, src=0)
        return answer[0]

    def _reading(self, state: Any, loss: float | None, losses: RowLosses | None) -> Reading:
        step = self._rank.step
        if step.own_data:
            fingerprint = self._rank.eval_fingerprint
        else:
            fingerprint = DataManifest.read(self._rank.store.manifest(step.data_key)).eval_fingerprint
        tokens, nll = grouped(losses) if losses is not None and loss is not None else ((), ())
        return Reading(loss, state.max_steps, fingerprint, tokens, nll, setting_of(step.config))

    def _has_diverged(self, loss: float) -> bool:
        return self._first is not None and 0 < WORSE_BY * self._first < loss


def stop_with_checkpoint(rank: Rank, args: Any, control: Any) -> None:
    """End the training after this step, to be continued from the checkpoint that the Trainer saves now."""
    if args.save_strategy == SaveStrategy.BEST:  # it would save this step only if it were the best
        args.save_strategy = SaveStrategy.STEPS
    rank.to_be_continued = True
    control.should_save = control.should_training_stop = True


def grouped(losses: RowLosses) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The tokens and the negative log-likelihood of each of GROUPS groups of documents."""
    group = ((losses.document.astype(np.uint64) * MIX) >> np.uint64(40)) % np.uint64(GROUPS)
    places = group.astype(np.int64)
    tokens = np.bincount(places, weights=losses.row_tokens, minlength=GROUPS)
    nll = np.bincount(places, weights=losses.row_nll, minlength=GROUPS)
    return tuple(int(one) for one in tokens), tuple(float(one) for one in nll)


@contextlib.contextmanager
def unseen_evaluation(trainer: Any) -> Iterator[None]:
    """Inside the block, an evaluation of the trainer leaves no trace: callbacks, logs and later random numbers do not
    change."""
    handler, control = trainer.callback_handler, copy.copy(vars(trainer.control))
    stored = {
        name: (kept, copy.deepcopy(kept))
        for name in ("_stored_metrics", "_metrics")
        if (kept := vars(trainer).get(name))
    }
    callbacks, handler.callbacks = handler.callbacks, []
    trainer.log = _log_nothing
    try:
        with kept_random_states(), kept_weights(trainer.optimizer):
            yield
    finally:
        trainer.model.train()  # TRL logs what it has gathered by the mode that the model is in
        del trainer.log
        handler.callbacks = callbacks
        vars(trainer.control).update(control)
        for now, before in stored.values():
            now.clear()
            now.update(before)


@contextlib.contextmanager
def kept_weights(optimizer: Any) -> Iterator[None]:
    """A schedule-free optimizer evaluates with other weights than it trains. It computes one from the other, which
    rounds."""
    inner = getattr(optimizer, "optimizer", optimizer)
    groups = inner.param_groups if callable(getattr(inner, "eval", None)) else []
    modes = [group.get("train_mode") for group in groups]
    weights = [(weight, weight.detach().clone()) for group in groups for weight in group["params"]]
    try:
        yield
    finally:
        for group, mode in zip(groups, modes, strict=True):
            group["train_mode"] = mode
        with torch.no_grad():
            for weight, before in weights:
                weight.copy_(before)


@contextlib.contextmanager
def kept_random_states() -> Iterator[None]:
    """All random states are afterwards as they were before."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.random.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        if cuda:
            torch.cuda.random.set_rng_state_all(cuda)


def _more_follows(args: Any, state: Any) -> bool:
    """Whether what the config does at the end of an epoch follows after this step."""
    at_epochs = IntervalStrategy.EPOCH in (args.eval_strategy, args.logging_strategy, args.save_strategy)
    return at_epochs and float(state.epoch).is_integer()


def _log_nothing(logs: Mapping[str, Any], *_: Any, **__: Any) -> None:
    pass
