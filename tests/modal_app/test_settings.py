from __future__ import annotations

from typing import Any

import pytest

from modal_app.cloud.settings import LONGEST_NAME, Deployment, settings_problems, train_function, trainer_identity
from tests.modal_app.deployments import shipped, shipped_node

DIGEST = "axolotlai/axolotl@sha256:" + "0123456789abcdef" * 4
COMMIT = "c0ffee" + "0" * 34


def test_what_is_shipped_has_no_problems() -> None:
    assert settings_problems(shipped_node()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sekret": "x"}, "has no sekret. It has: app, "),
        ({"secret": ""}, "executor.modal.secret has no value"),
        ({"packages": "einops==0.8"}, r"Write executor.modal.packages=\[einops==0.8\]"),
        ({"packages": ["einops"]}, "einops is not pinned"),
        ({"packages": ["einops>=0.8"]}, "einops>=0.8 is not pinned"),
        ({"packages": ["einops==0.8", "git+https://host/some.git"]}, "some.git is not pinned"),
        ({"kernels": ["kernels-community/flash-attn2"]}, "Write OWNER/NAME@REVISION"),
        ({"timeout_hours": 25}, "Modal's limit"),
        ({"cpu": 0}, "executor.modal.cpu=0: for each GPU, at least 0.125"),
        ({"memory_gib": "32Gi"}, "executor.modal.memory_gib=32Gi"),
        ({"timeout_hours": "long"}, "Modal's limit"),
        ({"trainer": "theirs"}, "lock or image"),
        ({"disk_gib": 100}, "executor.modal.disk_gib=100: a whole number from 512 to 3072"),
        ({"reuse": "yes"}, "executor.modal.reuse=yes: true or false"),
        ({"trainer": "image", "image": "axolotlai/axolotl:main"}, "Name it by digest"),
        ({"image": "nvidia/cuda@sha256:123"}, "64 hex digits"),
    ],
)
def test_settings_that_would_make_another_program_of_each_launch_are_refused(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(AssertionError, match=says):
        raise AssertionError("\n".join(map(str, settings_problems(shipped_node() | changes))))


def test_a_problem_has_its_key_and_what_was_seen_apart_from_its_sentence() -> None:
    (image,) = settings_problems(shipped_node() | {"trainer": "image", "image": "axolotlai/axolotl:main"})
    (cpu,) = settings_problems(shipped_node() | {"cpu": 0})
    assert (image.key, image.seen) == ("executor.modal.trainer", "")
    assert (cpu.key, cpu.seen) == ("executor.modal.cpu", "0")


@pytest.mark.parametrize(
    "changes",
    [
        {"packages": ["einops==0.8.1", "some[extra]==1.0", f"name @ git+https://host/some.git@{COMMIT}"]},
        {"trainer": "image", "image": DIGEST},
        {"kernels": [f"kernels-community/flash-attn2@{COMMIT}"]},
        {"timeout_hours": 0.5},
    ],
)
def test_settings_that_are_pinned_are_taken(changes: dict[str, Any]) -> None:
    assert settings_problems(shipped_node() | changes) == []


def test_keys_name_the_trainer_by_its_lock_unless_something_else_trains() -> None:
    lock = "1" * 64
    assert trainer_identity(lock, None) == trainer_identity(lock, shipped()) == lock
    assert trainer_identity(lock, shipped(image="nvidia/cuda:13.1.0-devel-ubuntu24.04", apt=["htop"])) == lock
    one = trainer_identity(lock, shipped(packages=["a==1", "b==2"]))
    assert one == trainer_identity(lock, shipped(packages=["b==2", "a==1"])) != lock
    theirs = trainer_identity(lock, shipped(trainer="image", image=DIGEST))
    assert theirs not in (lock, one)
    assert theirs == trainer_identity("2" * 64, shipped(trainer="image", image=f"mirror.example/{DIGEST}"))
    assert theirs != trainer_identity(lock, shipped(trainer="image", image=DIGEST[:-1] + "0"))


def test_keys_name_a_python_that_is_not_the_one_of_the_containers() -> None:
    lock = "1" * 64
    named = trainer_identity(lock, None, "3.13")
    assert named not in (lock, trainer_identity(lock, None, "3.14"))
    assert trainer_identity(lock, None, "3.12") == trainer_identity(lock, shipped()) == lock
    theirs = shipped(trainer="image", image=DIGEST)
    assert trainer_identity(lock, theirs, "3.13") == trainer_identity(lock, theirs), "its digest names its Python"


def test_a_pinned_kernel_replaces_its_branch_and_nothing_else() -> None:
    named = f"kernels-community/flash-attn2@{COMMIT}"
    asked = {"kernels-community/flash-attn2@v3", "kernels-community/flash-attn2@v2", "other/kernel@v1"}
    deployment = Deployment.from_node(shipped_node() | {"kernels": [named]}).wanted_by(kernels=asked)
    assert deployment.kernels == tuple(sorted({named, "kernels-community/flash-attn2@v2", "other/kernel@v1"}))


def test_the_longest_list_of_gpus_has_a_name_that_modal_takes() -> None:
    gpus = tuple(f"SOME-LONG-NAME-{number}:8" for number in range(8))
    assert len(train_function(gpus)) <= LONGEST_NAME
    assert train_function(gpus) != train_function(gpus[1:])
