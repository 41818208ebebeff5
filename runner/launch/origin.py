"""from=RUN: the config of RUN, which is also the base of the new run's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.compare.best import runnable_config
from runner.config.project import Origin
from runner.errors import SweepError
from runner.files.places import chosen_run
from runner.preflight.data import datasets_of, split_of
from runner.store.stores import is_mirror, stores


def find_origin(text: str, store_arg: str | None) -> Origin:
    """The config of RUN in RUN[@STEP]. `store_arg`: the value of store=.

    Raises SweepError for a run that does not exist or has left no config.
    """
    name = text.partition("@")[0]
    if not name:
        raise SweepError(f"from={text}: RUN or RUN@STEP is expected, as in from=0123456789ab@50.")
    try:
        store, run = chosen_run(stores(store_arg), name)
    except SweepError as error:
        raise SweepError(f"from={text}: {error}") from error
    identity = read_json(store.folder(StepKind.TRAIN, run.key).identity)
    gpu, data = identity.get("gpu") or {}, identity.get("data") or {}
    axolotl = _without_limit(runnable_config(store, run.key, by_origin=True), data.get("limit"))
    if not axolotl:
        raise SweepError(f"from={text}: {run.key} has left no config, so there is nothing to start from.")
    return Origin(
        axolotl=axolotl,
        gpu={"type": gpu.get("type", "cpu"), "count": gpu.get("count", 1), "fallback": gpu.get("fallback", [])},
        data={"limit": data.get("limit"), "seed": data.get("seed")},
        executor="modal" if is_mirror(store) else "local",
    )


def _without_limit(axolotl: Mapping[str, Any], limit: int | None) -> Mapping[str, Any]:
    """The config without the slices that data.limit has added: the new run adds them again."""
    if limit is None:
        return axolotl
    cut = [{**one, "split": split_of(one).removesuffix(f"[:{limit}]")} for one in datasets_of(axolotl)]
    return {**axolotl, "datasets": cut}
