"""What is served: the models by their names, and which of them share a base model. Standard library."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TOKEN_VARIABLE = "AXOSWEEP_SERVE_TOKEN"
"""What whoever asks the server must know, in the environment of the launcher."""

SERVED = "served"
"""On the runs Volume: a file per deployment that serves models."""

_NOT_OF_THE_BASE = frozenset(
    """
    learning_rate optimizer optim_args lr_scheduler lr_scheduler_kwargs weight_decay max_grad_norm warmup_steps
    warmup_ratio cosine_min_lr_ratio cosine_constant_lr_ratio adam_beta1 adam_beta2 adam_epsilon micro_batch_size
    gradient_accumulation_steps batch_size eval_batch_size num_epochs max_steps eval_steps evals_per_epoch
    eval_strategy save_steps saves_per_epoch save_strategy save_total_limit logging_steps early_stopping_patience
    seed val_set_size adapter neftune_noise_alpha datasets test_datasets
    """.split()
)
_ADAPTERS = ("lora_", "loraplus_", "peft_")
FORMAT = ("type", "chat_template", "chat_template_jinja")
"""Of a dataset: how its rows are written."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model: a base model alone, with a run's adapter, or a run's own weights."""

    names: tuple[str, ...]
    """What it may be asked by. The first is the run's key, or `base`."""
    config: Mapping[str, Any]
    """The run's keyed config; of a base model alone, that of any run that has it."""
    adapter: str | None = None
    """The folder of the run's adapter."""
    weights: str | None = None
    """The folder of a merged model or of a full fine-tune, in the place of the base model."""

    @property
    def shares(self) -> str:
        """Equal for models that one base model in memory can answer for."""
        if self.weights is not None:
            return self.weights
        return json.dumps(base_part(self.config), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the server's process is told, as one line on its standard input: the token is in no environment and in no
    command line."""

    inputs: str
    """The folder that `inputs/...` of a config stands for."""
    models: tuple[ServedModel, ...]
    socket: int
    """The descriptor of a socket that is bound already."""
    token: str = ""
    """Empty: anybody on this machine may ask."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Serving:
        raw = json.loads(text)
        models = tuple(ServedModel(**{**one, "names": tuple(one["names"])}) for one in raw.pop("models"))
        return cls(models=models, **raw)


def brings_token(headers: Iterable[tuple[bytes, bytes]], token: bytes) -> bool:
    """Whether a request says `Authorization: Bearer TOKEN`. `headers` as ASGI has them, names in small letters."""
    scheme, _, given = dict(headers).get(b"authorization", b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)


def base_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a keyed config may decide how its base model is loaded and asked.

    A key that is left out here wrongly would let a run answer on another's base model; one that is kept needlessly
    costs the memory of a second one.
    """
    return {
        key: value
        for key, value in config.items()
        if key not in _NOT_OF_THE_BASE and not key.startswith((*_ADAPTERS, "wandb_"))
    } | {"prompts": _prompts(config)}


def _prompts(config: Mapping[str, Any]) -> Any:
    """Without a chat template of the config's own its first dataset says a prompt's format (inference.formats)."""
    datasets = [one for one in config.get("datasets") or () if isinstance(one, Mapping)]
    if config.get("chat_template") or not datasets:
        return None
    return {name: datasets[0][name] for name in FORMAT if name in datasets[0]}
