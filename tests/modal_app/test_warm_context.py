"""What a command's context is, and that forks of the real trainer share no random state."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from modal_app.warm.context import Context, import_environment
from tests.modal_app.steps import ENVIRONMENT, PACKAGE

HERE = Path(__file__).parent


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
