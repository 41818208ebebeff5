"""Each of these patches still has its effect on the real library, at the locked version."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.modal_app.steps import ENVIRONMENT, PACKAGE

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("library_script.py")


@pytest.fixture(scope="module")
def found(trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("libraries")
    done = subprocess.run(
        [trainer, SCRIPT, folder], capture_output=True, text=True, check=False,
        env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipping the patch" not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_loss_that_is_not_finite_is_logged_as_it_is(found: dict[str, Any]) -> None:
    assert found["loss"] is None


def test_ranks_without_a_gpu_may_ask_whether_they_reach_each_other(found: dict[str, Any]) -> None:
    before, after = found["reaches"]
    assert before != "True", "PyTorch answers without a driver now"
    assert after == "True"


def test_the_hubs_library_is_offline_as_the_environment_says(found: dict[str, Any]) -> None:
    assert [hub for hub, _ in found["offline"]] == [False, True, False]


def test_datasets_is_offline_as_the_environment_says(found: dict[str, Any]) -> None:
    assert [rows for _, rows in found["offline"]] == [False, True, True]


def test_rows_are_cached_in_the_requested_folder(found: dict[str, Any]) -> None:
    assert found["rows"] == ["json"]


def test_a_row_with_a_picture_is_named_by_the_pictures_content(found: dict[str, Any]) -> None:
    here, elsewhere, inside, other = found["pictures"]
    assert here == elsewhere == inside != other


def test_the_hubs_cache_is_elsewhere_within_the_block(found: dict[str, Any]) -> None:
    assert found["file"] == [False, True, False]


def test_wandb_lists_the_same_packages_from_our_list(found: dict[str, Any]) -> None:
    packages = found["packages"]
    assert packages["equal"]
    assert packages["count"] > 100
    assert packages["times"] > 2, "what is equal is not W&B's own"


def test_the_service_of_a_tracked_run_is_looked_for_often(found: dict[str, Any]) -> None:
    before, after = found["service"]
    assert before < 10 < after


def test_bitsandbytes_gets_no_native_code_from_the_hub(found: dict[str, Any]) -> None:
    assert found["native"] == [False, []]


def test_the_schema_is_built_once_for_each_list_of_plugins(found: dict[str, Any]) -> None:
    before, while_applied, after = found["schema"]
    assert (before, while_applied, after) == (3, 1, 0)


def test_relora_restarts_equally_on_all_ranks_and_saves_nothing(found: dict[str, Any]) -> None:
    before, after = found["restarts"]
    assert before == {"equal": False, "saved": ["checkpoint-2"]}
    assert after == {"equal": True, "saved": []}


def test_texts_are_cut_into_the_same_rows_while_it_is_noted_which(found: dict[str, Any]) -> None:
    equal, rows = found["texts"]
    assert equal
    assert rows == [0, 1, 4, 1]
