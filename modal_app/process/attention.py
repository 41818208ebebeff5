"""Which kernel a config's attention loads from the hub, and how the kernel gets into an image.

Where flash-attn is not installed, transformers takes a prebuilt kernel from the hub through the `kernels` library, by
the major version in its table (`FLASH_ATTN_KERNEL_FALLBACK`, `FLASH_ATTN_KERNEL_VERSIONS` of transformers 5.20.1). A
trainer on Modal is offline, so its image has the kernel: `python attention.py /kernels owner/name@revision ...`
downloads it during the build, with the trainer's Python and no GPU. Standard library at import; the script needs no
other file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path("/kernels")
"""In an image."""
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
    implementation = config.get("attn_implementation")
    if not implementation and (config.get("flash_attention") or config.get("gemma4_hybrid_attn_impl")):
        implementation = "flash_attention_2"  # what Axolotl makes of them
    named = REPOSITORIES.get(str(implementation), str(implementation or "")).partition(":")[0]
    if "/" not in named:
        return ""
    return named if "@" in named else in_branch(named)


def in_branch(kernel: str) -> str:
    """The same kernel at the branch that transformers looks up, whatever revision is named."""
    repository = kernel.partition("@")[0]
    return f"{repository}@v{VERSIONS.get(repository, 1)}"


def local_kernels(kernels: Iterable[str], folder: Path = FOLDER) -> str:
    """The variable LOCAL_KERNELS, with which the `kernels` library loads these from an image, without the hub.

    Its own offline mode would need complete snapshots, with builds for every torch and every platform.

    >>> local_kernels(["owner/name@v1"])
    'owner/name=/kernels/owner/name'
    """
    return ":".join(f"{name}={folder / name}" for name in (kernel.partition("@")[0] for kernel in kernels))


def commit_of(kernel: str) -> str | None:
    """The commit of an image's kernel, for the record; None where LOCAL_KERNELS does not name it."""
    entries = (entry.partition("=") for entry in os.environ.get("LOCAL_KERNELS", "").split(":"))
    paths = {name: Path(path) for name, _, path in entries}
    path = paths.get(kernel.partition("@")[0])
    return path.resolve().name if path and path.exists() else None


def install(kernel: str, folder: Path) -> str:
    """Download a kernel's build for this torch into a folder, under its repository's name; returns its commit. Raises
    what the libraries raise: no such kernel, none for this torch, a publisher whom the hub does not trust, a missing
    Python package."""
    from kernels import Metadata, install_kernel
    from kernels.validate import DependencyValidator

    repository, _, revision = kernel.partition("@")
    build: Path = install_kernel(repository, revision=revision)
    metadata = Metadata.read_from_file(build / "metadata.json")
    DependencyValidator().validate_metadata(metadata=metadata, variant=build.name)
    if metadata.kernel_depends:
        raise SystemExit(f"{kernel} needs other kernels, which is not there yet: {metadata.kernel_depends}")
    snapshot = build.parent.parent
    (folder / repository).parent.mkdir(parents=True, exist_ok=True)
    (folder / repository).symlink_to(snapshot)
    return snapshot.name


def main() -> int:
    folder = Path(sys.argv[1])
    os.environ["KERNELS_CACHE"] = str(folder / "cache")  # before the library is imported
    for kernel in sys.argv[2:]:
        print(f"{kernel}: {install(kernel, folder)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
