"""What the real trainer's imports read of the environment, which requires another server, and what their patches leave
out: the result of the imports is the same, and code that needs it still gets it. And what a run of a preloaded trainer
has to do itself: each of its forks takes that time again. One process tells all, since it imports everything.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.warm.context import import_environment
from tests.modal_app.steps import PACKAGE, Warm, train_step

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("preload_script.py")
FEW = 10
"""Without Axolotl's own small ones there would be 40, with DeepSpeed, which accelerate asks for, 500."""
OF_NO_IMPORT = set(
    # the user, the folder and the terminal
    "ANDROID_DATA COLUMNS LINES TERM PWD USER USERNAME LOGNAME LNAME TMPDIR TEMP TMP UNIXCONFDIR UNIXUSRLIBDIR CI "
    "PYCHARM_HOSTED VS_PROFILER CLAUDE_CONFIG_DIR "
    # of a rank, which sets them itself
    "RANK LOCAL_RANK GLOBAL_RANK SLURM_PROCID OMPI_COMM_WORLD_RANK "
    # set for each step, and followed by each fork
    "HF_HUB_OFFLINE HF_DATASETS_OFFLINE HF_DATASETS_CACHE WANDB_MODE "
    # secrets, and what is for a login in the browser
    "OAUTH_CLIENT_ID OAUTH_CLIENT_SECRET SSLKEYLOGFILE WANDB_INSECURE_DISABLE_SSL "
    # SageMaker's; Python's own
    "SAGEMAKER_JOB_NAME SM_HP_MP_PARAMETERS _NETWORKX_BUILDING_DOCS_ _PYTHON_PROJECT_BASE "
    "_PYTHON_SUBPROCESS_USE_POSIX_SPAWN _PYTHON_SYSCONFIGDATA_NAME _PYTHON_SYSCONFIGDATA_PATH".split()
)
"""Variables that an import reads, without a result that would be wrong in a fork."""


@pytest.fixture(scope="module")
def preloaded(trainer: Path, store: Store, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`warm` has prepared the dataset."""
    home = str(tmp_path_factory.mktemp("home"))
    bare = {"PATH": os.defpath, "HOME": home, "CUDA_VISIBLE_DEVICES": "", "AXOLOTL_DO_NOT_TRACK": "1"}
    command: list[str | Path] = [trainer, "-P", SCRIPT, PACKAGE.parent, store.root]
    step = train_step("late-imports", max_steps=2, eval_steps=2, save_steps=2, logging_steps=1)
    done = subprocess.run(command, env=bare, input=step.to_json(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "skipping the patch" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_variable_that_the_real_imports_read_is_known(preloaded: dict[str, Any]) -> None:
    names = preloaded["read"]
    assert len(names) > 300, "it has watched the imports"
    assert set(names) - OF_NO_IMPORT - set(import_environment(dict.fromkeys(names, ""))) == set()


def test_each_flag_that_says_offline_is_followed(preloaded: dict[str, Any]) -> None:
    """By be_offline_as, except for evaluate's, which has a variable of its own."""
    followed = {"huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"}
    followed |= {"datasets.config.HF_DATASETS_OFFLINE"}
    assert set(preloaded["flags"]) - {"evaluate.config.HF_EVALUATE_OFFLINE"} == followed


def test_no_import_initializes_cuda(preloaded: dict[str, Any]) -> None:
    assert not preloaded["woken"]


def test_a_run_imports_nearly_nothing(preloaded: dict[str, Any]) -> None:
    assert preloaded["code"] == 0
    assert len(preloaded["late"]) < FEW, preloaded["late"]


def test_no_garbage_is_collected_while_importing(preloaded: dict[str, Any]) -> None:
    collected = [name for name, collects in preloaded["read"].items() if collects]
    assert len(collected) < len(preloaded["read"]) / 10, "which are read before the imports"
    assert preloaded["collects"]
    assert preloaded["frozen"] > 100_000


def test_transformers_knows_the_packages_that_the_standard_library_finds(preloaded: dict[str, Any]) -> None:
    known, packages = preloaded["known packages"], preloaded["packages"]
    assert known.keys() == packages.keys()
    assert {name: sorted(known[name]) for name in known} == {name: sorted(packages[name]) for name in packages}


def test_the_packages_metadata_is_read_once_for_all_that_ask(preloaded: dict[str, Any]) -> None:
    read, taken = preloaded["packages read"]
    assert read == 1
    assert taken >= 1, "nothing else asks: the patch saves nothing any more"


def test_scikit_learn_is_left_out_and_is_there_for_others(preloaded: dict[str, Any]) -> None:
    assert "sklearn" not in preloaded["imported"]
    assert preloaded["asks an assistant"] is False
    assert preloaded["available"] == [True, True]


def test_scipy_is_imported_when_a_loss_calls_it(preloaded: dict[str, Any]) -> None:
    assert "scipy.optimize" not in preloaded["imported"]
    by_scipy, *by_losses = preloaded["assigned"]
    assert by_losses == [by_scipy] * 2


def test_evaluate_is_imported_when_it_is_used(preloaded: dict[str, Any]) -> None:
    assert preloaded["imported"] == []
    assert preloaded["evaluate"]
    assert preloaded["evaluate was imported"]
