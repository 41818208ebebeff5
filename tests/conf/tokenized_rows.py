"""How many rows Axolotl prepares of each config, run by the trainer's Python: a JSON list of config files on stdin, a
JSON list of numbers on stdout's last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def rows_of(config: Path) -> int:
    import datasets
    from axolotl.cli.preprocess import do_cli

    prepared = config.parent / "prepared"
    do_cli(config=str(config), dataset_prepared_path=str(prepared))
    (folder,) = [path for path in prepared.iterdir() if path.is_dir()]
    return len(datasets.load_from_disk(str(folder)))


if __name__ == "__main__":
    files = [Path(name) for name in json.load(sys.stdin)]
    sys.argv = sys.argv[:1]  # Axolotl reads it
    sys.stdout.write("\n" + json.dumps([rows_of(file) for file in files]))
