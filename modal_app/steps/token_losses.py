"""The negative log-likelihood of each trained token of a batch, from the logits that its evaluation has computed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch

CHUNK = 2**25
"""Logits that are converted to 32 bits at a time: 128 MiB."""
FROM_LABELS = ("labels", "shift_labels", "num_items_in_batch", "skip_logits")
KEEP = "logits_to_keep"


def token_losses(logits: torch.Tensor, labels: torch.Tensor, chunk: int = CHUNK) -> torch.Tensor:
    """Sequences x tokens, 0 where nothing is trained or predicted. `logits`: one for each token; those of a token
    predict the next one."""
    losses = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    targets = labels[:, 1:].to(logits.device)
    sequences, places = torch.nonzero(targets != -100, as_tuple=True)
    step = max(1, chunk // logits.shape[-1])
    for part in range(0, len(places), step):
        at, place = sequences[part : part + step], places[part : part + step]
        losses[at, place + 1] = torch.nn.functional.cross_entropy(
            logits[at, place].float(), targets[at, place], reduction="none"
        )
    return losses


def logits_of(outputs: Any, labels: torch.Tensor) -> torch.Tensor | None:
    """None if the model has computed its loss without them: a fused loss."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    complete = isinstance(logits, torch.Tensor) and logits.ndim == 3 and logits.shape[:2] == labels.shape
    return logits if complete else None


def losses_of_another_pass(model: Any, inputs: Mapping[str, Any], *, at_once: bool) -> torch.Tensor | None:
    """Request logits from the model: without labels, it does not fuse them with the loss. Only those of trained tokens,
    if the model can choose, and sequence by sequence, unless `at_once`: the memory for logits was not planned for."""
    found = [_pass(model, part) for part in _parts(inputs, at_once=at_once)]
    return torch.cat([one for one in found if one is not None]) if None not in found else None


def _parts(inputs: Mapping[str, Any], *, at_once: bool) -> Iterator[Mapping[str, Any]]:
    count = len(inputs["labels"])
    tensors = [one for one in inputs.values() if isinstance(one, torch.Tensor)]
    if at_once or count == 1 or any(one.ndim == 0 or len(one) != count for one in tensors):
        yield inputs
        return
    for at in range(count):
        yield {name: one[at : at + 1] if isinstance(one, torch.Tensor) else one for name, one in inputs.items()}


def _pass(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    labels = inputs["labels"]
    without_labels = {name: value for name, value in inputs.items() if name not in FROM_LABELS}
    places = torch.nonzero((labels[:, 1:] != -100).any(dim=0), as_tuple=True)[0]
    if _can_choose(model) and len(places):
        logits = model(**without_labels, **{KEEP: places}).logits
        if logits.shape[:2] == (len(labels), len(places)):
            return _losses_at(logits, labels, places)
    logits = logits_of(model(**without_labels), labels)
    return None if logits is None else token_losses(logits, labels)


def _losses_at(logits: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The losses from logits that were computed for these places alone."""
    chosen = torch.full((len(labels), len(places) + 1), -100, dtype=labels.dtype, device=labels.device)
    chosen[:, 1:] = labels[:, places + 1]
    losses = torch.zeros(labels.shape, dtype=torch.float32, device=logits.device)
    losses[:, places + 1] = token_losses(logits, chosen)[:, 1:]
    return losses


def _can_choose(model: Any) -> bool:
    inner = getattr(model, "module", model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return KEEP in inspect.signature(inner.forward).parameters
