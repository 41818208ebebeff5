"""Whether the runs of a search can have a value of its metric, as far as that is known before the first of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from runner.compare.measured import is_of_a_task
from runner.compare.metric_names import logged_name
from runner.errors import SweepError, did_you_mean
from runner.types import Experiment

EVAL = "eval_"
HELD_OUT = ("eval_loss", "eval_ppl")
TRAINING = (
    "loss", "ppl", "grad_norm", "learning_rate", "tokens/total", "tokens/trainable", "tokens/train_per_sec_per_gpu",
    "memory/max_active (GiB)", "memory/max_allocated (GiB)", "memory/device_reserved (GiB)",
)  # fmt: skip
SPEED = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
PREFERENCES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")
"""What most kinds of `rl` log in addition, in training and in evaluations."""
REWARDS = ("accuracy",)
"""The same for reward models."""
TYPING_ERROR = 0.88
"""The similarity from which a name is a known one with a typing error: eval_los, val_loss, but not eval_kd_loss."""


def refuse_unmeasured(metric: str, experiments: Sequence[Experiment]) -> None:
    """Raises SweepError for a metric that some of the runs cannot have, and for a known name with a typing error."""
    if any("train" not in one.stages for one in experiments):
        raise SweepError("A search needs results, and stages has no train. Leave out stages.")
    if is_of_a_task(metric):
        if any("eval" not in one.stages for one in experiments):
            raise SweepError(
                f"search.metric={metric}: the runs are not evaluated, so none of them has a value of it. Add "
                "'stages=[preprocess,train,eval]'."
            )
        return
    name = logged_name(metric)
    meant = difflib.get_close_matches(name.casefold(), _known(experiments), n=1, cutoff=TYPING_ERROR)
    if meant and meant[0] != name:
        raise SweepError(f"search.metric={metric}: no run logs a metric of this name. Did you mean {meant[0]}?")
    without = next((one for one in experiments if not _has_held_out_rows(one)), None)
    if name.startswith(EVAL) and without:
        raise SweepError(
            f"search.metric={metric}: {' '.join(without.overrides) or 'a run'} has no held-out rows, so it has no "
            "value of it. Set val_set_size=0.05, or name a metric of the training, such as search.metric=loss."
        )


def note_on(metric: str, experiments: Sequence[Experiment]) -> str:
    """A note if the runs are not known to log the metric; otherwise empty."""
    known, name = _known(experiments), logged_name(metric)
    if is_of_a_task(metric) or name in known:
        return ""
    return (
        f"search.metric={metric} is not among the metrics that these runs are known to log. If they do not log it, the "
        f"search ends after its first round.{did_you_mean(name, known)} Known: {', '.join(known)}."
    )


def _known(experiments: Sequence[Experiment]) -> list[str]:
    in_both = [
        *(PREFERENCES if any(one.axolotl.get("rl") for one in experiments) else ()),
        *(REWARDS if any(_rates(one) for one in experiments) else ()),
    ]
    return [*HELD_OUT, *TRAINING, *in_both, *(f"{EVAL}{one}" for one in in_both), *SPEED]


def _rates(experiment: Experiment) -> bool:
    return any(experiment.axolotl.get(key) for key in ("reward_model", "process_reward_model"))


def _has_held_out_rows(experiment: Experiment) -> bool:
    return bool(experiment.axolotl.get("val_set_size") or experiment.axolotl.get("test_datasets"))
