"""Fetches a repository into the hub's cache, with the trainer's Python: `python fetch.py NAME COMMIT [SKIPPED ...]`."""

from __future__ import annotations

import sys


def main() -> int:
    from huggingface_hub import snapshot_download

    name, commit, *skipped = sys.argv[1:]
    print(snapshot_download(name, revision=commit, ignore_patterns=skipped), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
