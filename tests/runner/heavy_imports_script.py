"""Run axosweep; if it has imported heavy packages, print them and end with 99: `python heavy_imports_script.py
WORDS`."""

from __future__ import annotations

import sys

from runner.cli import main

HEAVY = ("hydra", "omegaconf", "modal", "wandb", "huggingface_hub", "plotly", "torch", "numpy", "axolotl")

if __name__ == "__main__":
    code = main(sys.argv[1:])
    heavy = [name for name in HEAVY if name in sys.modules]
    print(*heavy, file=sys.stderr)
    sys.exit(99 if heavy else code)
