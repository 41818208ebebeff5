"""Rules about the learning rate: rates far outside the usual ones for the method, the optimizer and the model's size.

The bands are wide: each bound is a few times what any source that is named here uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from runner.preflight.data import SPLIT_INTO_PIECES
from runner.preflight.findings import Finding, shown, warning
from runner.preflight.rules.run_facts import RunFacts

GPT3 = "https://arxiv.org/abs/2005.14165"
"""Table 2.1: the rates of pretraining by size, from 6e-4 (125 million) to 6e-5 (175 billion)."""
SMOLLM2 = "https://github.com/huggingface/alignment-handbook/tree/main/recipes/smollm2"
"""Full fine-tunes of 1.7 billion parameters at 3e-4, and of 360 million at 1e-3."""
LORA_WITHOUT_REGRET = "https://thinkingmachines.ai/blog/lora/"
"""LoRA takes about ten times the rate of a full fine-tune, whatever the rank."""
ZEPHYR = "https://arxiv.org/abs/2310.16944"
"""DPO of all weights at 5e-7."""
SIMPO = "https://github.com/princeton-nlp/SimPO#hyperparameter-tuning"
"""3e-7 to 1e-6; 1e-5 degrades the model."""
TRL_DPO = "https://huggingface.co/docs/trl/dpo_trainer"
TRL_GRPO = "https://huggingface.co/docs/trl/grpo_trainer"
LION = "https://arxiv.org/abs/2302.06675"
"""Its rates are 3 to 10 times smaller than those of AdamW."""
LOMO = "https://arxiv.org/abs/2306.09782"
"""Fine-tunes with SGD at 1e-2 and more, since it has no adaptive step."""

MUON = 0.1
"""Its update has a norm of its own, so it takes rates that no Adam takes."""
SGD_LOW = 1e-4
TINY = 10_000_000
"""With fewer parameters, a model takes the rates of the tiny one."""
MILLION = 1_000_000
SIZES = (100 * MILLION, 1000 * MILLION, 3500 * MILLION)


class Method(StrEnum):
    """What rates depend on, besides whether an adapter is trained."""

    FINE_TUNING = "fine-tuning"
    PRETRAINING = "pretraining"
    PREFERENCE = "preference"
    SIMPO = "simpo"
    ONLINE = "online"


@dataclass(frozen=True, slots=True)
class Band:
    low: float
    high: tuple[float, float, float, float]
    """For models of less than 100 million, 1 billion and 3.5 billion parameters, and for larger ones."""
    source: str


FULL = {
    Method.FINE_TUNING: Band(1e-7, (1e-2, 1e-3, 3e-4, 1e-4), SMOLLM2),
    Method.PRETRAINING: Band(1e-6, (1e-1, 1e-2, 3e-3, 2e-3), GPT3),
    Method.PREFERENCE: Band(1e-8, (1e-3, 2e-4, 5e-5, 2e-5), ZEPHYR),
    Method.SIMPO: Band(1e-8, (1e-3, 5e-5, 5e-6, 5e-6), SIMPO),
    Method.ONLINE: Band(1e-8, (1e-3, 2e-4, 5e-5, 2e-5), TRL_GRPO),
}
ADAPTER = {
    Method.FINE_TUNING: Band(2e-6, (1e-1, 1e-2, 5e-3, 3e-3), LORA_WITHOUT_REGRET),
    Method.PRETRAINING: Band(1e-6, (1e-1, 1e-2, 5e-3, 3e-3), LORA_WITHOUT_REGRET),
    Method.PREFERENCE: Band(1e-7, (1e-2, 2e-3, 1e-3, 5e-4), TRL_DPO),
    Method.SIMPO: Band(1e-7, (1e-2, 2e-3, 1e-3, 5e-4), SIMPO),
    Method.ONLINE: Band(1e-7, (1e-2, 2e-3, 1e-3, 5e-4), TRL_GRPO),
}
NAMES = {
    Method.FINE_TUNING: "fine-tuning",
    Method.PRETRAINING: "pretraining",
    Method.PREFERENCE: "preference training",
    Method.SIMPO: "SimPO",
    Method.ONLINE: "online reinforcement learning",
}
ADAPTERS = {"lora": "LoRA", "qlora": "QLoRA"}


def learning_rate_too_high(run: RunFacts) -> Iterator[Finding]:
    """The learning rate is several times above the usual rates for the method, the optimizer and the model's size."""
    rate, factor = run.number("learning_rate"), _tolerance(_optimizer(run))
    if rate is None or factor is None or _lora_keys_without_adapter(run):
        return
    band = _band(run)
    limit = MUON if _optimizer(run).startswith("muon") else band.high[_size_class(run)] * factor * _slack(run)
    if rate > limit * 1.0001:
        optimizer = _optimizer(run)
        source = LION if factor < 1 else band.source
        yield warning(
            "learning_rate",
            run.axolotl["learning_rate"],
            f"{_what(run, optimizer)} is known to work up to about {limit:.0e}, and this rate is "
            f"{_times(rate / limit)} that: the run would diverge, and its steps would be wasted",
            f"Set learning_rate={_advised(run, factor):.0e}{'' if run.adapts else ', or train an adapter (lora=r16)'}.",
            source,
        )


def learning_rate_too_low(run: RunFacts) -> Iterator[Finding]:
    """The learning rate is far below the usual rates for the method, or plain SGD has a rate for Adam."""
    rate, optimizer = run.number("learning_rate"), _optimizer(run)
    if rate is None:
        return
    if optimizer in ("sgd", "flash_sgd", "flash_sgdw"):
        if rate <= SGD_LOW:
            yield warning(
                "learning_rate",
                run.axolotl["learning_rate"],
                f"{optimizer} multiplies the clipped gradient by this rate, so a step changes all weights together "
                f"by at most {rate:.0e}, a thousandth of a step of Adam or less: the run would learn almost nothing",
                "Set optimizer=adamw_torch_fused, or learning_rate=1e-2.",
                LOMO,
            )
        return
    factor = _tolerance(optimizer)
    if factor is None:
        return
    band = _band(run)
    low = band.low * (0.1 if factor < 1 else 1)
    if rate < low / 1.0001:
        yield warning(
            "learning_rate",
            run.axolotl["learning_rate"],
            f"{_what(run, optimizer)} needs {low:.0e} or more, and this rate is 1/{low / rate:.3g} of that: the run "
            "would hardly change the model",
            f"Set learning_rate={_advised(run, factor):.0e}.",
            band.source,
        )


def learning_rate_of_another_model(run: RunFacts) -> Iterator[Finding]:
    """`base_model=` without `model=` keeps the learning rate and other values that suit only the default model."""
    keys = run.experiment.for_another_model
    if "learning_rate" not in keys or (run.parameters or math.inf) < TINY:
        return
    rest = " and ".join(f"{key}={shown(run.axolotl[key])}" for key in ("model_type", "sequence_len") if key in keys)
    yield warning(
        "learning_rate",
        run.axolotl["learning_rate"],
        f"it was chosen for the default model, not for this base_model{f', and so was {rest}' if rest else ''}",
        f"Name a model file that fits (model=), or set your own values (learning_rate={_advised(run, 1):.0e}).",
        _band(run).source,
    )


def _optimizer(run: RunFacts) -> str:
    return str(run.axolotl.get("optimizer") or "adamw_torch_fused")


def _tolerance(optimizer: str) -> float | None:
    """How many times the rate of AdamW an optimizer takes; None if no rate is known to be too high for it."""
    if "lion" in optimizer:
        return 0.5
    if "galore" in optimizer or "apollo" in optimizer or "adafactor" in optimizer or optimizer == "adalomo":
        return 10
    if optimizer.startswith("schedule_free_adam") or optimizer.startswith("schedule_free_radam"):
        return 5
    if "adam" in optimizer or optimizer.startswith("muon") or optimizer.startswith("rmsprop"):
        return 1
    return None


def _slack(run: RunFacts) -> float:
    """Where only a part of the weights is trained at a time, larger steps are common (LISA: arXiv 2403.17919)."""
    partly = ("unfrozen_parameters", "lisa_n_layers", "relora", "use_onebitllms")
    return 10 if any(run.axolotl.get(key) for key in partly) else 1


def _lora_keys_without_adapter(run: RunFacts) -> bool:
    """The rate is then most likely one for LoRA, which the rule about these keys mentions."""
    return not run.axolotl.get("adapter") and bool(run.axolotl.get("lora_r"))


def method_of(run: RunFacts) -> Method:
    rl = run.axolotl.get("rl")
    if rl == "simpo":
        return Method.SIMPO
    if rl in ("dpo", "ipo", "kto", "orpo"):
        return Method.PREFERENCE
    if rl:
        return Method.ONLINE
    kinds = [dataset.get("type") for dataset in run.datasets]
    if run.axolotl.get("pretraining_dataset") or (kinds and all(kind in SPLIT_INTO_PIECES for kind in kinds)):
        return Method.PRETRAINING
    return Method.FINE_TUNING


def _band(run: RunFacts) -> Band:
    return (FULL if not run.axolotl.get("adapter") else ADAPTER)[method_of(run)]


def _size_class(run: RunFacts) -> int:
    if run.parameters is None:
        return 1  # it may be a small one, which takes larger rates
    return sum(run.parameters >= size for size in SIZES)


def _what(run: RunFacts, optimizer: str) -> str:
    """`fine-tuning with LoRA (8.03 billion parameters, adamw_torch)`"""
    adapter = run.axolotl.get("adapter")
    kind = f"with {ADAPTERS.get(str(adapter), str(adapter))}" if adapter else "of all weights"
    sized = "" if run.parameters is None else f"{_billions(run.parameters)}, "
    by = f" ({run.axolotl['rl']})" if run.axolotl.get("rl") else ""
    return f"{NAMES[method_of(run)]}{by} {kind} ({sized}{optimizer})"


def _billions(parameters: float) -> str:
    if parameters >= 1000 * MILLION:
        return f"{parameters / 1e9:.3g} billion parameters"
    return f"{parameters / 1e6:.3g} million parameters"


def _advised(run: RunFacts, factor: float) -> float:
    usual = {
        Method.FINE_TUNING: (2e-5, 2e-4),
        Method.PRETRAINING: (2e-4, 2e-4),
        Method.PREFERENCE: (5e-7, 5e-6),
        Method.SIMPO: (8e-7, 5e-6),
        Method.ONLINE: (1e-6, 1e-5),
    }[method_of(run)][1 if run.axolotl.get("adapter") else 0]
    return usual / 5 if factor < 1 else usual


def _times(factor: float) -> str:
    return f"{factor:.3g} times"


RULES = (learning_rate_too_high, learning_rate_too_low, learning_rate_of_another_model)
