"""Which models are served under which names, and which of them share a base model. Standard library."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

TOKEN_VARIABLE = "AXOSWEEP_SERVE_TOKEN"
"""The launcher's environment variable with the token that every request must contain."""

MAX_BODY = 1 << 20
"""Bytes of a request, if nothing else is set. A chat that fills a context of 128 Ki tokens has half of that."""

SERVED = "served"
"""A folder on the runs Volume, with a file for each deployment that serves models."""

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
"""Keys of a dataset that say how its rows are formatted."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model: a base model alone, with a run's adapter, or a run's own weights."""

    names: tuple[str, ...]
    """Names for requests. The first is the run's key, or `base`."""
    config: Mapping[str, Any]
    """The run's keyed config; for a base model alone, the config of any of its runs."""
    adapter: str | None = None
    """The folder of the run's adapter."""
    weights: str | None = None
    """The folder of a merged model or of a full fine-tune, which replaces the base model."""

    @property
    def shares(self) -> str:
        """Equal for models that can share one base model in memory."""
        if self.weights is not None:
            return self.weights
        return json.dumps(base_part(self.config), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Serving:
    """The input of the server's process, one line on its standard input, so that the token is in no environment and no
    command line."""

    inputs: str
    """The folder that `inputs/...` in a config refers to."""
    models: tuple[ServedModel, ...]
    socket: int
    """The descriptor of a bound socket."""
    token: str = ""
    """If it is empty, only this user's processes may use the server."""
    max_body: int = MAX_BODY
    """Bytes of a request."""
    threads: int = 0
    """For the sums on a CPU; 0 leaves it to the libraries."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Serving:
        raw = json.loads(text)
        models = tuple(ServedModel(**{**one, "names": tuple(one["names"])}) for one in raw.pop("models"))
        return cls(models=models, **raw)


def brings_token(headers: Iterable[tuple[bytes, bytes]], token: bytes) -> bool:
    """Whether a request has the header `Authorization: Bearer TOKEN`. `headers`: as in ASGI, names in lower case."""
    scheme, _, credentials = dict(headers).get(b"authorization", b"").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), token)


def base_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a keyed config that may affect how its base model is loaded and prompted.

    If a key is missing here by mistake, a run could answer with another run's base model. A needless key costs the
    memory of a second base model.
    """
    return {
        key: value
        for key, value in config.items()
        if key not in _NOT_OF_THE_BASE and not key.startswith((*_ADAPTERS, "wandb_"))
    } | {"prompts": _prompts(config)}


def _prompts(config: Mapping[str, Any]) -> Any:
    """If the config has no chat template, its first dataset determines the format of a prompt (inference.formats)."""
    datasets = [one for one in config.get("datasets") or () if isinstance(one, Mapping)]
    if config.get("chat_template") or not datasets:
        return None
    return {name: datasets[0][name] for name in FORMAT if name in datasets[0]}
