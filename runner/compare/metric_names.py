"""The names by which people call metrics."""

from __future__ import annotations


def logged_name(metric: str) -> str:
    """A metric's name in metrics.jsonl; W&B and other tools use other names.

    >>> [logged_name(name) for name in ("eval/loss", "train/loss", "eval_perplexity", "tasks/humaneval/pass@1")]
    ['eval_loss', 'loss', 'eval_ppl', 'tasks/humaneval/pass@1']
    """
    name = f"eval_{metric.removeprefix('eval/')}" if metric.startswith("eval/") else metric.removeprefix("train/")
    return {"eval_perplexity": "eval_ppl", "perplexity": "ppl", "train_loss": "loss"}.get(name, name)
