"""Computes with torch what the attention kernel computes on a GPU: the module of a kernel's build."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    **_: Any,
) -> torch.Tensor:
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    return scaled_dot_product_attention(
        q, k, v, dropout_p=dropout_p, is_causal=causal, scale=softmax_scale, enable_gqa=True
    ).transpose(1, 2)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    **rest: Any,
) -> torch.Tensor:
    parts = [slice(begin, end) for begin, end in pairwise(cu_seqlens_q.tolist())]
    return torch.cat([flash_attn_func(q[None, part], k[None, part], v[None, part], **rest)[0] for part in parts])


def flash_attn_with_kvcache(*_: Any, **__: Any) -> None:
    raise NotImplementedError
