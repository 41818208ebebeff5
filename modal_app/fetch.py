"""Fetches a base model into the hub's cache: `python modal_app/fetch.py NAME COMMIT`, with the trainer's Python."""

from __future__ import annotations

import sys

SKIPPED = ["original/*", "*.gguf", "*.pth", "consolidated*", "*.onnx", "*.msgpack", "*.h5"]
"""Second copies of the weights, in formats that nothing here reads."""


def main() -> int:
    from huggingface_hub import snapshot_download

    name, commit = sys.argv[1:]
    print(snapshot_download(name, revision=commit, ignore_patterns=SKIPPED), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
