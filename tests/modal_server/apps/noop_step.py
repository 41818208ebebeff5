"""Stands in for a training: a process of its own that writes a result and can be made slow."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(folder: str, seconds: str) -> None:
    print(f"training in {folder}", flush=True)
    time.sleep(float(seconds))
    result = {"loss": 0.25, "token": os.environ["HF_TOKEN"], "offline": os.environ["HF_HUB_OFFLINE"]}
    (Path(folder) / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
