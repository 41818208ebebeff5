"""Rules about the length of a run: a batch that its rows cannot fill, and intervals that are longer than the run."""

from __future__ import annotations

from collections.abc import Iterator

from runner.preflight.data import Steps
from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts

TRAINER = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"
BATCHES = "https://docs.axolotl.ai/docs/multi-gpu.html"
REPEATED_DATA = "https://arxiv.org/abs/2305.16264"
"""Up to about 4 epochs, repeated data is worth as much as new data; after about 16, repeating adds nothing."""
RELORA, LISA = "https://arxiv.org/abs/2307.05695", "https://arxiv.org/abs/2403.17919"
EPOCHS = 20
"""Most fine-tunes have 1 to 4; LIMA's 1000 rows had 15 (https://arxiv.org/abs/2305.11206)."""
SMALL = 100_000_000
EPOCHS_OF_SMALL = 100
EVALUATION_SPEED = 3
"""A row takes a forward pass in an evaluation, and in training a backward pass of twice its cost, too."""
LONG = 100
"""Steps from which on half a run of warmup is no trial."""


def batch_of_more_rows_than_there_are(run: RunFacts) -> Iterator[Finding]:
    """A step takes more rows than the dataset has for training, so an epoch is one step of a batch that is not full."""
    steps, ranks = run.steps, run.ranks
    if steps is None or steps.batch <= steps.rows:
        return
    rows = f"about {steps.rows}" if steps.declared else f"{steps.rows}"
    yield warning(
        "micro_batch_size",
        run.axolotl.get("micro_batch_size", 1),
        f"a step takes {steps.batch} rows (micro_batch_size x gradient_accumulation_steps x {ranks} "
        f"{'process' if ranks == 1 else 'processes'}) and the dataset has "
        f"{rows} for training{', by its declared size' if steps.declared else ''}: an epoch is one step",
        "Make the batch smaller, or use more rows.",
        BATCHES,
    )


def interval_beyond_the_run(run: RunFacts) -> Iterator[Finding]:
    """An interval for evaluating, saving or logging is longer than the run."""
    if run.total_steps is None:
        return
    for key in ("eval_steps", "save_steps", "logging_steps"):
        every = run.number(key) or 0
        if every >= 1 and every > run.total_steps:
            still = "; only its first and last state are evaluated" if key == "eval_steps" else ""
            reached = f"this step is never reached: the run has {length_text(run)}{still}"
            yield warning(key, run.axolotl[key], reached, _within(key, run.total_steps), TRAINER)


def method_that_never_gets_to_work(run: RunFacts) -> Iterator[Finding]:
    """ReLoRA restarts, or LISA draws other layers, after a number of steps that the run does not reach."""
    needs = {"jagged_restart_steps": "relora", "lisa_step_interval": "lisa_n_layers"}
    lost = {
        "jagged_restart_steps": "ReLoRA never merges what it has learned, and is plain LoRA",
        "lisa_step_interval": "LISA trains the layers that it draws first, and no others",
    }
    for key, needed in needs.items():
        every = run.number(key) or 0
        if run.axolotl.get(needed) and run.total_steps is not None and every >= run.total_steps:
            yield warning(
                key,
                run.axolotl[key],
                f"the run has {length_text(run)}, so {lost[key]}",
                _within(key, run.total_steps),
                RELORA if needed == "relora" else LISA,
            )


def warmup_beyond_the_run(run: RunFacts) -> Iterator[Finding]:
    """The warmup is as long as the run, or half of a long run, so the learning rate is hardly ever reached."""
    warmup, total = run.number("warmup_steps") or 0, run.total_steps
    if total is not None and warmup >= total:
        never = f"the warmup never ends: the run has {length_text(run)}"
        yield warning("warmup_steps", run.axolotl["warmup_steps"], never, _shorter(total), TRAINER)
    elif total is not None and total >= LONG and warmup > total / 2:
        most = f"most of the run is its warmup, below the learning rate: it has {length_text(run)}"
        yield warning("warmup_steps", run.axolotl["warmup_steps"], most, _shorter(total), TRAINER)


def warmup_of_half_the_run(run: RunFacts) -> Iterator[Finding]:
    """With a warmup_ratio of a half or more, most of the run is below its learning rate."""
    ratio = run.number("warmup_ratio") or 0
    if ratio >= 0.5 and run.axolotl.get("warmup_steps") is None:
        yield warning(
            "warmup_ratio",
            run.axolotl["warmup_ratio"],
            "all steps are warmup, so the learning rate is reached at the very end"
            if ratio >= 1
            else f"{ratio:.0%} of all steps are warmup, so most of the run trains below its learning rate",
            "Set warmup_ratio=0.05 (or warmup_steps=N, if a number of steps was meant).",
            TRAINER,
        )


def more_evaluations_than_steps(run: RunFacts) -> Iterator[Finding]:
    """More evaluations or saves are requested for each epoch than it has steps: each step is followed by one."""
    steps = run.steps_per_epoch
    if steps is None or run.steps is None:
        return
    for key, what in (("evals_per_epoch", "evaluation"), ("saves_per_epoch", "save")):
        often = run.number(key) or 0
        if often > 1 and often > steps:
            per_epoch = max(1, round(steps))
            yield warning(
                key,
                run.axolotl[key],
                f"an epoch has {'about ' if run.steps.declared else ''}{per_epoch} "
                f"{'step' if per_epoch == 1 else 'steps'}, so each is followed by {_a(what)}, which takes longer than "
                "the step",
                f"Set {key}=1.",
                TRAINER,
            )


def evaluations_that_take_longer_than_training(run: RunFacts) -> Iterator[Finding]:
    """An evaluation takes more than twice as long as the training before it. This assumes that training on a row takes
    three times as long as evaluating it."""
    steps, held_out = run.steps, _held_out(run)
    interval = _steps_between_evaluations(run)
    if steps is None or held_out is None or interval is None or not run.evaluates or (run.total_steps or 0) <= LONG:
        return
    key = "evals_per_epoch" if run.axolotl.get("evals_per_epoch") else "eval_steps"
    trained = interval * steps.rows / (run.steps_per_epoch or 1)
    if interval < 1 or held_out <= 2 * EVALUATION_SPEED * trained:
        return
    seldom = 2 if key == "evals_per_epoch" else max(1, round((run.steps_per_epoch or 2) / 2))
    yield warning(
        key,
        run.axolotl[key],
        f"every {interval:.3g} steps ({trained:,.0f} rows), {'about ' if steps.declared else ''}{held_out:,} rows are "
        "evaluated, so that more than two thirds of the time go into evaluating",
        f"Set {key}={seldom}, or hold fewer rows out (val_set_size=500).",
        TRAINER,
    )


def _held_out(run: RunFacts) -> int | None:
    """Rows of one evaluation; None if they are of another dataset, which is not prepared."""
    if run.prepared.eval_rows:
        return run.prepared.eval_rows
    share = run.number("val_set_size") or 0
    if run.steps is None or run.axolotl.get("test_datasets") or not share:
        return None
    return round(run.steps.rows * share / (1 - share)) if share < 1 else int(share)


def _steps_between_evaluations(run: RunFacts) -> float | None:
    if run.steps_per_epoch is None:
        return None
    if often := run.number("evals_per_epoch") or 0:
        return run.steps_per_epoch / often
    every = run.number("eval_steps") or 0
    return (every * (run.total_steps or 0) if every < 1 else every) or None


def dozens_of_epochs(run: RunFacts) -> Iterator[Finding]:
    """After about 16 epochs the same rows teach nothing more: the run memorizes them."""
    key = "max_steps" if (run.number("max_steps") or 0) > 0 else "num_epochs"
    epochs = _epochs(run)
    ends_otherwise = bool(run.axolotl.get("early_stopping_patience") or run.axolotl.get("rl"))
    small = run.parameters is not None and run.parameters < SMALL
    if epochs < (EPOCHS_OF_SMALL if small else EPOCHS) or ends_otherwise:
        return
    yield warning(
        key,
        run.axolotl[key],
        f"all rows are trained on {'about ' if key == 'max_steps' else ''}{epochs:.4g} times: after 4 epochs "
        "repeated rows are worth less than new ones, after 16 nothing, and the model memorizes them",
        f"{'Remove it, and set' if key == 'max_steps' else 'Set'} num_epochs=3, or stop early "
        "(early_stopping_patience=3 with eval_steps and save_steps).",
        REPEATED_DATA,
    )


def _epochs(run: RunFacts) -> float:
    """max_steps wins over num_epochs, in both directions."""
    steps = run.number("max_steps") or 0
    if steps > 0:
        return steps / run.steps_per_epoch if run.steps_per_epoch else 0
    return run.number("num_epochs") or 0


def length_text(run: RunFacts) -> str:
    """For people: `12 steps at most`."""
    steps: Steps | None = run.steps
    counted = f"{run.total_steps} step{'' if run.total_steps == 1 else 's'}"
    if steps is None or steps.given:
        return counted
    return f"about {counted}, by the dataset's declared size" if steps.declared else f"{counted} at most"


def _within(key: str, total: int) -> str:
    return f"Set {key}={max(1, total // 4)}."


def _shorter(total: int) -> str:
    return f"Set warmup_steps={max(1, total // 20)} (or warmup_ratio=0.05)."


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


RULES = (
    batch_of_more_rows_than_there_are,
    interval_beyond_the_run,
    method_that_never_gets_to_work,
    warmup_beyond_the_run,
    warmup_of_half_the_run,
    more_evaluations_than_steps,
    evaluations_that_take_longer_than_training,
    dozens_of_epochs,
)
