"""Print which variables the trainer's imports read, which flags mean offline, and whether CUDA was initialized.

`python imports_read_script.py ROOT` prints to stderr, since imports print. Runs in the trainer's environment.
"""

from __future__ import annotations

import json
import os
import sys


def main(root: str) -> None:
    sys.path.insert(0, root)
    from modal_app.warm import preload

    seen: set[str] = set()
    plain = type(os.environ)

    class Watched(plain):  # type: ignore[valid-type, misc]  # which class it is, is only known here
        def __getitem__(self, name: str) -> str:
            seen.add(name)
            return str(super().__getitem__(name))

        def __contains__(self, name: object) -> bool:
            seen.add(str(name))
            return bool(super().__contains__(name))

    os.environ.__class__ = Watched
    preload.preload()
    os.environ.__class__ = plain
    flags = {
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        for key, value in list(vars(module).items())
        if isinstance(value, bool) and "OFFLINE" in key
    }
    import torch

    print(json.dumps([sorted(seen), sorted(flags), torch.cuda.is_initialized()]), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
