"""Which held-out rows the runs of a plan will have, as far as that is known before their datasets are prepared."""

from __future__ import annotations

from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from runner.config.numbers import number
from runner.keys.identity import short_hash
from runner.preflight.data import datasets_of
from runner.types import Plan, Run

TOKENS = ("chat_template", "chat_template_jinja")
"""Keys that change the tokens of every row of a chat."""


def separate_tables_note(plan: Plan, store: Store) -> str:
    """A note if some of these runs certainly have other held-out rows than others, so that no table has all of them;
    otherwise empty."""
    kinds = {_held_out(planned.run) for planned in plan.runs} - {""}
    prints = {DataManifest.read(store.manifest(one.key)).eval_fingerprint for one in plan.datasets}
    if not plan.pending or len(kinds) < 2 or (len(prints) == 1 and None not in prints):
        return ""
    return (
        f"these runs have {len(kinds)} sets of held-out rows, so `compare` ranks them in separate tables. To "
        "rank them together, give all of them the same rows (test_datasets, one data.seed) and the same chat template, "
        "or evaluate them on tasks (axosweep eval --tasks)."
    )


def _held_out(run: Run) -> str:
    """A hash of what chooses the rows; empty without any."""
    config, seed = run.config, run.experiment.data.seed
    chats = any(str(one.get("type")).startswith("chat_template") for one in datasets_of(config))
    tokens = {key: config.get(key) for key in TOKENS if chats}
    if own := config.get("test_datasets"):
        return short_hash([own, tokens])
    if not number(config.get("val_set_size")):
        return ""
    seed = config.get("seed") if seed is None else seed
    return short_hash([config.get("datasets"), config.get("val_set_size"), seed, tokens])
