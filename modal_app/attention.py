"""Which kernel of the hub a config's attention loads, and how it gets into an image.

Where flash-attn is not installed, transformers takes a prebuilt kernel from the hub through the `kernels` library, by
the major version in its table (`FLASH_ATTN_KERNEL_FALLBACK`, `FLASH_ATTN_KERNEL_VERSIONS` of transformers 5.20.1).
A trainer on Modal is offline, so its image has the kernel: `python attention.py owner/name@revision ...` brings it at
build, with the trainer's Python and no GPU. Standard library at import; that script stands alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORIES = {
    "flash_attention_2": "kernels-community/flash-attn2",
    "flash_attention_3": "kernels-community/vllm-flash-attn3",
    "flash_attention_4": "kernels-community/flash-attn4",
}
VERSIONS = {
    "kernels-community/flash-attn2": 3,
    "kernels-community/flash-attn3": 1,
    "kernels-community/vllm-flash-attn3": 1,
    "kernels-community/flash-attn4": 0,
}
"""The major version of a kernel's interface, a branch `v<N>` of its repository; 1 for any other."""


def kernel_of(config: Mapping[str, Any]) -> str:
    """The kernel that an Axolotl config loads, as `owner/name@revision`; empty when it loads none.

    >>> kernel_of({"attn_implementation": "flash_attention_2"})
    'kernels-community/flash-attn2@v3'
    """
    asked = config.get("attn_implementation")
    if not asked and (config.get("flash_attention") or config.get("gemma4_hybrid_attn_impl")):
        asked = "flash_attention_2"  # what Axolotl makes of them
    named = REPOSITORIES.get(str(asked), str(asked or "")).partition(":")[0]
    if "/" not in named:
        return ""
    return named if "@" in named else in_branch(named)


def in_branch(kernel: str) -> str:
    """The same kernel at the branch that transformers looks up, whatever revision is named."""
    repository = kernel.partition("@")[0]
    return f"{repository}@v{VERSIONS.get(repository, 1)}"


def install(kernel: str) -> str:
    """Bring a kernel, for this torch, into $KERNELS_CACHE or the hub's cache, so that it is found offline. Its commit.

    Raises what the libraries raise: no such kernel, none for this torch, a publisher that the hub does not trust.
    """
    from kernels import install_kernel

    repository, _, revision = kernel.partition("@")
    branch = in_branch(kernel).partition("@")[2]
    snapshot: Path = install_kernel(repository, revision=revision).parent.parent
    ref = snapshot.parent.parent / "refs" / branch
    if not ref.exists():
        # It is looked up by its branch, which a revision that was named stands for here.
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(snapshot.name)
    install_kernel(repository, version=int(branch[1:]), local_files_only=True)  # as a trainer looks for it, or raises
    return snapshot.name


def installed_commit(kernel: str) -> str | None:
    """The commit that a trainer with this environment loads; None when it is not there."""
    repository, _, revision = kernel.partition("@")
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("KERNELS_CACHE") or os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = cache / f"kernels--{repository.replace('/', '--')}"
    if (folder / "snapshots" / revision).is_dir():
        return revision
    try:
        return (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def main() -> int:
    # Branches first: another revision stands for its branch only where nothing else does.
    for kernel in sorted(sys.argv[1:], key=lambda name: name != in_branch(name)):
        print(f"{kernel}: {install(kernel)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
