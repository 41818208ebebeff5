"""A model's shape by its name: from its folder, from Hugging Face's cache, or from the hub itself.

Names that a file in conf/model describes are known before (runner/config/known_names.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.known_names import MOST
from runner.keys.hub_commits import cached_snapshot
from runner.keys.hub_models import MOST_BYTES, hub_model, stored_model, with_weights
from runner.memory.counted_weights import weights_in_folder
from runner.types import ModelFacts

GATED = frozenset(
    """
    llama mistral ministral ministral3 mistral3 qwen2 qwen3 gemma gemma2 gemma3 gemma3_text phi3 olmo2 olmo3 smollm3
    granite seed_oss mixtral qwen2_moe qwen3_moe
    """.split()
)
"""transformers' model types with an attention of q, k, v and o and an MLP of gate, up and down in every layer: their
weights follow from the shape. Others have facts if their weights are counted; their memory is not estimated."""
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")

Weights = Callable[[], int | None]
"""The number of weights, counted when it is needed."""


@dataclass(frozen=True, slots=True)
class ShapeAnswer:
    facts: ModelFacts | None
    problem: str = ""
    """Why there are none."""


def facts_of(base_model: str, revision: str | None = None, *, ask_hub: bool = False) -> ShapeAnswer:
    """The facts of a `base_model` (a folder or a hub name). Only what is not on this machine is requested from the hub,
    and once for each commit. Never raises.
    """
    if not base_model:
        return ShapeAnswer(None, "there is no base_model")
    if (folder := _folder(base_model, revision)) is None:
        return _from_hub(base_model, revision) if ask_hub else _unknown(base_model, "it is not on this machine")
    raw = _read(folder / "config.json")
    if isinstance(raw, str):
        return _unknown(base_model, raw)
    return facts_from(raw, base_model, str(folder / "config.json"), lambda: weights_in_folder(folder))


def facts_here(base_model: str, revision: str | None, commit: str | None) -> ModelFacts | None:
    """The facts of a `base_model` without any request: from this disk, or from an earlier answer of the hub about this
    commit."""
    found = facts_of(base_model, revision).facts
    if found is not None or commit is None or not _HUB_NAME.match(base_model):
        return found
    if (model := stored_model(base_model, commit)) is None:
        return None
    return facts_from(model.config, base_model, model.source, lambda: model.weights).facts


def config_of(base_model: str, revision: str | None = None) -> Mapping[str, Any] | None:
    """The config.json of a `base_model` (a folder or a hub name) from this disk; None if it is not here."""
    if not base_model:
        return None
    found = _folder(base_model, revision)
    raw = "" if found is None else _read(found / "config.json")
    return None if isinstance(raw, str) else raw


def _folder(base_model: str, revision: str | None) -> Path | None:
    folder = Path(base_model).expanduser()
    return folder if folder.is_dir() else cached_snapshot(base_model, revision, "config.json")


def facts_from(raw: Mapping[str, Any], base_model: str, source: str, counted: Weights = lambda: None) -> ShapeAnswer:
    """The facts in transformers' config.json, which others have written. `counted`: the number of weights in its files,
    for models whose config does not determine it.
    """
    kind = str(raw.get("model_type"))
    quantization = raw.get("quantization_config")
    method = quantization.get("quant_method", "bitsandbytes") if isinstance(quantization, dict) else "bitsandbytes"
    if method != "bitsandbytes":
        return _unknown(base_model, f"its weights are quantized with {method}, which is not estimated")
    text = raw["text_config"] if isinstance(raw.get("text_config"), dict) else raw
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    hidden, layers, heads, vocabulary = (_whole(text, name) or _whole(raw, name) for name in needed)
    experts = _experts(text)
    ffn = (_whole(text, "moe_intermediate_size") if experts else None) or _whole(text, "intermediate_size")
    if not (hidden and layers and heads and vocabulary and ffn):
        return _unknown(base_model, f"its config.json (model_type {kind}) does not have the usual sizes")
    shape = _Shape(hidden, layers, heads, _whole(text, "num_key_value_heads") or heads,
                   _whole(text, "head_dim") or max(hidden // heads, 1), ffn, vocabulary, _tied(raw, text, kind),
                   experts, _active(text))  # fmt: skip
    vision = "vision_config" in raw
    parameters = shape.weights if kind in GATED and not vision else counted() or (shape.weights if kind in GATED else 0)
    active = None if kind in GATED else _multiplied(shape, text, parameters)
    if not parameters or (kind not in GATED and active is None):
        return _unknown(base_model, f"the number of weights of its kind ({kind}) is not known before they are here")
    return ShapeAnswer(
        ModelFacts(
            base_model=base_model,
            parameters=parameters,
            layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            ffn=ffn,
            vocabulary=vocabulary,
            tied=shape.tied,
            context=_whole(text, "max_position_embeddings") or 0,
            source=source,
            experts=experts,
            active_experts=shape.active_experts,
            vision=vision,
            active_parameters=active,
            unusual="" if kind in GATED else f"layers of the kind {kind}",
        )
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    tied: bool
    experts: int | None
    active_experts: int | None

    @property
    def weights(self) -> int:
        """The weights of the matrices, the norms and the embeddings, if every layer has attention and a gated MLP."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_dim
        mlps = self.expert * (self.experts or 1)
        norms = (2 * self.layers + 1) * self.hidden
        return self.layers * (attention + mlps) + norms + self.embedding * (1 if self.tied else 2)

    @property
    def expert(self) -> int:
        return 3 * self.hidden * self.ffn

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden


def _multiplied(shape: _Shape, text: Mapping[str, Any], parameters: int) -> int | None:
    """The weights that a token is multiplied with; None if that does not follow."""
    idle = 0
    if shape.experts:
        if not shape.active_experts:
            return None
        every = _whole(text, "interleave_moe_layer_step") or 1
        with_experts = (shape.layers - (_whole(text, "first_k_dense_replace") or 0)) // every
        idle = (shape.experts - shape.active_experts) * with_experts * shape.expert
    left = parameters - idle - (0 if shape.tied else shape.embedding)
    return left if left > 0 else None


def _experts(text: Mapping[str, Any]) -> int | None:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return next((found for name in names if (found := _whole(text, name))), None)


def _active(text: Mapping[str, Any]) -> int | None:
    return _whole(text, "num_experts_per_tok") or _whole(text, "top_k_experts")


def _whole(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST else None


def _tied(raw: Mapping[str, Any], text: Mapping[str, Any], kind: str) -> bool:
    """Whether the embedding is also the head. Gemma's configs leave it out; transformers' default for them is tied."""
    for one in (raw, text):
        if "tie_word_embeddings" in one:
            return bool(one["tie_word_embeddings"])
    return kind.startswith("gemma")


def _from_hub(base_model: str, revision: str | None) -> ShapeAnswer:
    if not _HUB_NAME.match(base_model):
        return _unknown(base_model, "it is neither a folder nor a name on the hub (owner/name)")
    model = hub_model(base_model, revision)
    if isinstance(model, str):
        return _unknown(base_model, model)
    return facts_from(model.config, base_model, model.source, lambda: with_weights(model).weights)


def _unknown(base_model: str, why: str) -> ShapeAnswer:
    return ShapeAnswer(None, f"the shape of {base_model} is unknown: {why}")


def _read(path: Path) -> dict[str, Any] | str:
    try:
        if path.stat().st_size > MOST_BYTES:
            return f"{path} is larger than {MOST_BYTES:,} bytes"
        raw = json.loads(path.read_bytes())
    except OSError as error:
        return f"{path}: {error.strerror}"
    except (ValueError, RecursionError):
        return f"{path} is not valid JSON"
    return raw if isinstance(raw, dict) else f"{path} is not a JSON object"
