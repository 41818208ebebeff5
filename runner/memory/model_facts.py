"""A model's shape from the config.json next to its weights: in a local folder, or in Hugging Face's cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.keys.hub_commits import hub_cache
from runner.types import ModelFacts

GATED = frozenset(
    """
    llama mistral ministral mistral3 qwen2 qwen3 gemma gemma2 gemma3 gemma3_text phi3 olmo2 olmo3 smollm3 granite
    seed_oss mixtral qwen2_moe qwen3_moe
    """.split()
)
"""transformers' model types with an attention of q, k, v and o and an MLP of gate, up and down in every layer. Others
are not estimated."""


def facts_of(base_model: str) -> ModelFacts | None:
    """The facts of a `base_model` (a folder or a hub name) from this disk; None if it is not here, or not GATED."""
    path = _config_path(base_model)
    raw = config_of(base_model)
    return facts_from(raw, base_model, str(path)) if raw is not None else None


def config_of(base_model: str) -> Mapping[str, Any] | None:
    """The config.json of a `base_model` (a folder or a hub name) from this disk; None if it is not here."""
    path = _config_path(base_model)
    if path is None:
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return raw if isinstance(raw, dict) else None


def _config_path(base_model: str) -> Path | None:
    if not base_model:
        return None
    folder = Path(base_model).expanduser()
    return folder / "config.json" if folder.is_dir() else _cached_config(base_model)


def facts_from(raw: Mapping[str, Any], base_model: str, source: str) -> ModelFacts | None:
    """The facts in transformers' config.json; None for a kind of model that is not estimated."""
    quantized = (raw.get("quantization_config") or {}).get("quant_method", "bitsandbytes")
    if raw.get("model_type") not in GATED or quantized != "bitsandbytes":
        return None
    text = raw.get("text_config") or raw
    try:
        hidden, layers, heads = (
            int(text["hidden_size"]),
            int(text["num_hidden_layers"]),
            int(text["num_attention_heads"]),
        )
        ffn, vocabulary = int(text["intermediate_size"]), int(text.get("vocab_size") or raw["vocab_size"])
    except (KeyError, TypeError, ValueError):
        return None
    experts = text.get("num_local_experts") or text.get("num_experts")
    kv_heads, head_dim = text.get("num_key_value_heads") or heads, text.get("head_dim") or hidden // heads
    ffn = text.get("moe_intermediate_size") or ffn
    tied = _tied(raw, text)
    return ModelFacts(
        base_model=base_model,
        parameters=_count(
            hidden, layers, heads * head_dim, kv_heads * head_dim, ffn * (experts or 1), vocabulary, tied
        ),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        vocabulary=vocabulary,
        tied=tied,
        context=int(text.get("max_position_embeddings") or 0),
        source=source,
        experts=experts,
        active_experts=text.get("num_experts_per_tok"),
        vision="vision_config" in raw,
    )


def _tied(raw: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Whether the embedding is also the head. Gemma's configs leave it out; transformers' default for them is tied."""
    for one in (raw, text):
        if "tie_word_embeddings" in one:
            return bool(one["tie_word_embeddings"])
    return str(raw["model_type"]).startswith("gemma")


def _count(hidden: int, layers: int, query: int, key: int, ffn: int, vocabulary: int, tied: bool) -> int:
    """Weights of the matrices, the norms and the embeddings."""
    matrices = layers * (2 * hidden * query + 2 * hidden * key + 3 * hidden * ffn)
    return matrices + (2 * layers + 1) * hidden + vocabulary * hidden * (1 if tied else 2)


def _cached_config(base_model: str) -> Path | None:
    """config.json of the newest snapshot of a hub model in the cache."""
    folder = hub_cache() / f"models--{base_model.replace('/', '--')}" / "snapshots"
    found = sorted(folder.glob("*/config.json"), key=lambda path: path.lstat().st_mtime)
    return found[-1] if found else None
