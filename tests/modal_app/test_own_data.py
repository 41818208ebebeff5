"""Which runs read their own data, what Axolotl gets for that, and where such a run's rows come from."""

from __future__ import annotations

from typing import Any

import pytest

from modal_app.process.attempt import stamp
from modal_app.store.own_data import own_data_of
from modal_app.store.step import Step, StepKind

COMMIT = "c0ffee" + "0" * 34
STORED = {"path": "inputs/rows.jsonl", "type": "chat_template"}
ON_THE_HUB = {"path": "owner/rows", "revision": COMMIT, "skip": 10}


def step(kind: StepKind = StepKind.TRAIN, **config: Any) -> Step:
    return Step(kind, "key", {"base_model": "inputs/model", **config}, "data")


@pytest.mark.parametrize(
    ("config", "key", "streams"),
    [
        ({"pretraining_dataset": [STORED], "streaming": True}, "pretraining_dataset", True),
        ({"datasets": [STORED], "streaming": True}, "streaming", True),
        ({"datasets": [STORED], "skip_prepare_dataset": True}, "skip_prepare_dataset", False),
    ],
)
def test_a_run_reads_its_own_data_because_of_a_key(config: dict[str, Any], key: str, streams: bool) -> None:
    own = step(**config).own_data
    assert own is not None
    assert (own.key, own.streams) == (key, streams)


def test_a_key_that_is_false_leaves_the_data_prepared() -> None:
    assert own_data_of({"datasets": [STORED], "streaming": False, "skip_prepare_dataset": None}) is None


def test_only_a_run_whose_rows_are_not_stored_asks_the_hub_for_them() -> None:
    assert step(pretraining_dataset=[ON_THE_HUB]).asks_the_hub
    assert step(streaming=True, datasets=[STORED], test_datasets=[ON_THE_HUB]).asks_the_hub
    assert not step(streaming=True, datasets=[STORED]).asks_the_hub
    assert not step(pretraining_dataset=[{"path": "json", "data_files": ["inputs/rows.jsonl"]}]).asks_the_hub
    assert not step(datasets=[ON_THE_HUB]).asks_the_hub, "its rows are prepared"
    assert not step(StepKind.MERGE, pretraining_dataset=[ON_THE_HUB]).asks_the_hub


def test_axolotl_gets_a_pinned_stream_without_its_commit_since_it_would_forget_to_skip() -> None:
    given = stamp(step(pretraining_dataset=[ON_THE_HUB], datasets=[ON_THE_HUB]))
    assert given["pretraining_dataset"] == [{"path": "owner/rows", "skip": 10}]
    assert given["datasets"] == [ON_THE_HUB]
