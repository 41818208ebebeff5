"""Rules about which state of a run counts as the best, and about stopping early."""

from __future__ import annotations

from collections.abc import Iterator

from runner.config.numbers import number
from runner.preflight.findings import Finding, error, shown, warning
from runner.preflight.rules.run_facts import RunFacts

TRAINER = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"
BUILDER = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/core/builders/causal.py"
"""What of it reaches the trainer: greater_is_better only if it is true; load_best_model_at_end on conditions."""

CALLBACK = "https://huggingface.co/docs/transformers/main_classes/callback#transformers.EarlyStoppingCallback"

REPORTED = ("loss", "ppl", "runtime", "samples_per_second", "steps_per_second")
"""What an evaluation reports, without `eval_`: transformers' own, and the perplexity that Axolotl adds. The scores of
do_causal_lm_eval are only logged."""
PERPLEXITY = ("ppl", "eval_ppl")


def best_by_a_metric_that_is_not_reported(run: RunFacts) -> Iterator[Finding]:
    """transformers looks metric_for_best_model up after each evaluation, and fails if the evaluation does not report
    it."""
    metric = run.axolotl.get("metric_for_best_model")
    if not isinstance(metric, str) or run.axolotl.get("rl") or not run.evaluates or _reports_more(run):
        return
    if metric.removeprefix("eval_") not in REPORTED:
        yield error(
            "metric_for_best_model",
            metric,
            f"an evaluation of this run reports {', '.join(f'eval_{one}' for one in REPORTED)}, so the first one would "
            "end the run with a KeyError",
            "Set metric_for_best_model=eval_loss.",
            TRAINER,
        )


def saves_of_an_unknown_best(run: RunFacts) -> Iterator[Finding]:
    """save_strategy=best needs metric_for_best_model, which Axolotl's trainers for rl never get."""
    config = run.axolotl
    if config.get("save_strategy") != "best" or config.get("save_steps") or config.get("saves_per_epoch"):
        return
    sets_the_loss = config.get("lr_scheduler") in ("reduce_lr_on_plateau", "greedy")
    missing = bool(config.get("rl")) or not config.get("metric_for_best_model")
    if missing and not sets_the_loss and not _foreign(run):
        yield error(
            "save_strategy",
            "best",
            "transformers refuses it once the model is loaded, since "
            + (
                f"Axolotl passes no metric on with rl={config['rl']}"
                if config.get("rl")
                else "metric_for_best_model is not set"
            ),
            "Set save_strategy=epoch." if config.get("rl") else "Set metric_for_best_model=eval_loss.",
            TRAINER,
        )


def best_is_the_highest_loss(run: RunFacts) -> Iterator[Finding]:
    """With greater_is_better on a loss, the worst state counts as the best one, and is loaded or saved."""
    metric = str(run.axolotl.get("metric_for_best_model") or "loss")
    if run.axolotl.get("greater_is_better") is True and metric.endswith("loss") and not run.axolotl.get("rl"):
        yield warning(
            "greater_is_better",
            True,
            f"a smaller {metric} is better, so the run would choose its worst state as the best one, and early "
            "stopping would end it as soon as it improves",
            "Remove it (~greater_is_better).",
            TRAINER,
        )


def best_is_the_highest_perplexity(run: RunFacts) -> Iterator[Finding]:
    """For a metric whose name does not end in `loss`, transformers treats the highest value as the best, and Axolotl
    does not pass greater_is_better=false on."""
    metric = run.axolotl.get("metric_for_best_model")
    if metric in PERPLEXITY and not run.axolotl.get("rl") and run.evaluates:
        yield warning(
            "metric_for_best_model",
            metric,
            "the run would choose the state with the highest perplexity as its best one, even with "
            "greater_is_better=false, which Axolotl does not pass on",
            "Set metric_for_best_model=eval_loss: the order is the same.",
            BUILDER,
        )


def best_of_rl_is_ignored(run: RunFacts) -> Iterator[Finding]:
    """Axolotl's trainers for rl have no early stopping and load no best model, whatever these keys say."""
    for key in ("early_stopping_patience", "metric_for_best_model", "load_best_model_at_end"):
        if run.axolotl.get("rl") and run.axolotl.get(key):
            yield warning(
                key,
                run.axolotl[key],
                f"with rl={run.axolotl['rl']} Axolotl does not pass it on: the run trains to its end, and its last "
                "state is the result",
                f"Remove it (~{key}), and set the length of the run (num_epochs, max_steps).",
                "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/core/builders/rl.py",
            )


def best_model_is_never_loaded(run: RunFacts) -> Iterator[Finding]:
    """Axolotl loads the best model only with evaluations whose interval divides that of the saves."""
    config = run.axolotl
    if config.get("load_best_model_at_end") is not True or config.get("rl") or config.get("save_strategy") == "best":
        return
    save, evaluate = _interval(run, "save_steps", "saves_per_epoch"), _interval(run, "eval_steps", "evals_per_epoch")
    held_out = bool(config.get("val_set_size")) or bool(config.get("test_datasets"))
    if held_out and save and evaluate and save % evaluate == 0:
        return
    seen = "no rows are held out" if not held_out else "it has no save_steps and eval_steps (or N per epoch)"
    if held_out and save and evaluate:
        intervals = _as_set(run, "save_steps", "saves_per_epoch"), _as_set(run, "eval_steps", "evals_per_epoch")
        seen = f"with {' and '.join(intervals)} a save does not always follow an evaluation"
    yield warning(
        "load_best_model_at_end",
        True,
        f"Axolotl ignores it in this run, since {seen}: the last state is the result",
        "Set evals_per_epoch and saves_per_epoch to the same number, with val_set_size=0.05.",
        BUILDER,
    )


def patience_without_evaluations(run: RunFacts) -> Iterator[Finding]:
    """Early stopping refuses a run that evaluates nothing, when the training begins."""
    other_trainer = run.axolotl.get("rl") or run.foreign
    if run.axolotl.get("early_stopping_patience") and not run.evaluates and not other_trainer:
        yield error(
            "early_stopping_patience",
            run.axolotl["early_stopping_patience"],
            "nothing is evaluated in this run, so it ends with an AssertionError when the training begins",
            "Set val_set_size=0.05, eval_steps and save_steps, or remove it (~early_stopping_patience).",
            CALLBACK,
        )


def patience_beyond_the_evaluations(run: RunFacts) -> Iterator[Finding]:
    """Early stopping needs more evaluations without an improvement than there are in the whole run."""
    patience = run.number("early_stopping_patience") or 0
    evaluations = _evaluations(run)
    if patience and evaluations is not None and patience >= evaluations and not run.axolotl.get("rl"):
        yield warning(
            "early_stopping_patience",
            run.axolotl["early_stopping_patience"],
            f"the run is evaluated {evaluations} times, so it can never stop early",
            f"Set early_stopping_patience={max(1, evaluations // 3)}, or evaluate more often.",
            CALLBACK,
        )


def _evaluations(run: RunFacts) -> int | None:
    every = run.number("eval_steps")
    if not every:
        return None
    if every < 1:
        return int(1 / every + 1e-9)
    return None if run.total_steps is None else int(run.total_steps // every)


def _as_set(run: RunFacts, steps: str, per_epoch: str) -> str:
    key = per_epoch if run.axolotl.get(per_epoch) else steps
    return f"{key}={shown(run.axolotl.get(key))}"


def _interval(run: RunFacts, steps: str, per_epoch: str) -> float | None:
    """As axolotl.utils.config.normalize_config computes it."""
    epochs = run.number("num_epochs") if run.axolotl.get("num_epochs") is not None else 1.0
    often = run.number(per_epoch)
    if often and epochs and often * epochs > 1:
        return 1.0 / (often * epochs)
    return number(run.axolotl.get(steps)) or None


def _reports_more(run: RunFacts) -> bool:
    """Whether something that is not known here decides what an evaluation reports."""
    keys = ("reward_model", "process_reward_model", "do_bench_eval", "diffusion_lm")
    return _foreign(run) or any(run.axolotl.get(key) for key in keys)


def _foreign(run: RunFacts) -> bool:
    """Whether another trainer than Axolotl's own may train."""
    return bool(run.axolotl.get("plugins") or run.axolotl.get("trainer_cls"))


RULES = (
    best_by_a_metric_that_is_not_reported,
    saves_of_an_unknown_best,
    best_is_the_highest_loss,
    best_is_the_highest_perplexity,
    best_of_rl_is_ignored,
    best_model_is_never_loaded,
    patience_without_evaluations,
    patience_beyond_the_evaluations,
)
