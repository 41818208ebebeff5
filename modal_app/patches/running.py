"""Patches for a run, after all imports. None but `stream_at_commits` changes a result of the run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from modal_app.patches.packages import names_and_versions
from modal_app.patches.patch import module_with
from modal_app.store.own_data import pinned_streams
from modal_app.store.step import Step


def leave_out_deepspeed(step: Step) -> None:
    if not step.config.get("deepspeed"):
        other = module_with("accelerate.utils.other", "is_deepspeed_available")
        other.is_deepspeed_available = lambda: False


def stream_at_commits(step: Step) -> None:
    commits = pinned_streams(step.config)
    if step.own_data is None or not step.own_data.streams or not commits:
        return
    sft = module_with("axolotl.utils.data.sft", "load_dataset")
    load = sft.load_dataset

    def load_at_commit(path: str, **kwargs: Any) -> Any:
        return load(path, **{"revision": commits.get(path), **kwargs})

    sft.load_dataset = load_at_commit


def list_packages_quickly(step: Step) -> None:
    if step.tracking.mode != "disabled":
        util = module_with("wandb.util", "working_set", "InstalledDistribution")
        util.working_set = lambda: itertools.starmap(util.InstalledDistribution, names_and_versions())


def go_offline_without_an_answer(go_offline: Callable[[str], None]) -> None:
    """An error about the key is raised as before: it would not go away."""
    wandb = module_with("wandb", "init", "teardown")
    errors = module_with("wandb.errors", "Error", "AuthenticationError", "UsageError")
    init = wandb.init

    def init_or_go_offline(*args: Any, **kwargs: Any) -> Any:
        try:
            return init(*args, **kwargs)
        except (errors.AuthenticationError, errors.UsageError):
            raise
        except (errors.Error, OSError) as error:
            go_offline(str(error).strip())
        wandb.teardown()  # its service would refuse the id of the run that it could not begin
        return init(*args, **kwargs)

    wandb.init = init_or_go_offline


def look_often_for_the_service(step: Step) -> None:
    if step.tracking.mode != "disabled":
        port_file = module_with("wandb.sdk.lib.service.service_port_file", "_SLEEP")
        port_file._SLEEP = _sleep_at_most_5_ms


def _sleep_at_most_5_ms(seconds: float) -> None:
    time.sleep(min(seconds, 0.005))
