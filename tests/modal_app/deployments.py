"""The shipped settings of a deployment, and changes to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modal_app.cloud.settings import Deployment
from tests.read_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]


def shipped_node() -> dict[str, Any]:
    """The `executor.modal` node of conf/executor/modal.yaml."""
    node: dict[str, Any] = read_yaml(ROOT / "conf" / "executor" / "modal.yaml")["modal"]
    return node


def shipped(
    *,
    gpu_lists: tuple[tuple[str, ...], ...] = (),
    kernels: tuple[str, ...] = (),
    reused: bool = False,
    **node: Any,
) -> Deployment:
    """`reused`: as for a plan with more runs than containers."""
    return Deployment.from_node(shipped_node() | node).wanted_by(gpu_lists=gpu_lists, kernels=kernels, reuse=reused)
