"""A variable that the real trainer's imports read requires another server; other variables do not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from modal_app.warm.context import Context, import_environment
from tests.modal_app.steps import ENVIRONMENT, PACKAGE

HERE = Path(__file__).parent
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


@pytest.mark.slow
def test_each_variable_that_the_real_imports_read_is_known(trainer: Path) -> None:
    bare = {"PATH": os.defpath, "HOME": "/nowhere", "CUDA_VISIBLE_DEVICES": "", "AXOLOTL_DO_NOT_TRACK": "1"}
    command: list[str | Path] = [trainer, "-P", HERE / "imports_read_script.py", PACKAGE.parent]
    done = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, flags, woken = json.loads(done.stderr.splitlines()[-1])
    assert len(names) > 300, "it has watched the imports"
    unknown = set(names) - OF_NO_IMPORT - set(import_environment(dict.fromkeys(names, "")))
    assert unknown == set()
    # What be_offline_as sets, and evaluate's, which has a variable of its own.
    followed = {"huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"}
    followed |= {"datasets.config.HF_DATASETS_OFFLINE"}
    assert set(flags) - {"evaluate.config.HF_EVALUATE_OFFLINE"} == followed
    assert not woken


@pytest.mark.slow
def test_two_forks_of_the_real_trainer_share_no_random_state(trainer: Path) -> None:
    """With the random generator of datasets, two steps would give the same name to different rows."""
    command: list[str | Path] = [trainer, HERE / "random_states_script.py", PACKAGE.parent]
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known, shared = json.loads(done.stderr.splitlines()[-1])
    assert {"random._inst", "datasets.fingerprint.fingerprint_rng", "torch.default_generator"} <= set(known)
    assert [name for name in shared if not name.startswith("sympy.")] == []  # those only test whether terms are equal


def test_secrets_are_kept_from_the_server_and_words_that_look_like_one_are_not() -> None:
    variables = dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "HUGGINGFACE_TOKEN", "AXOLOTL_SECRET", "TORCH_HOME"), "1")
    variables |= {"HF_TOKEN_PATH": "1", "TOKENIZERS_PARALLELISM": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    kept = import_environment(variables)
    assert set(kept) == {"TORCH_HOME", "HF_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_IMPLICIT_TOKEN"}


def test_a_context_survives_the_socket_with_bytes_that_are_not_text() -> None:
    odd = os.fsdecode(b"caf\xe9")
    context = Context.of_this_process({"ODD": odd})
    assert Context.from_json(json.loads(json.dumps(context.as_json()))).environment == {"ODD": odd}
