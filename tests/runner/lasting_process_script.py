"""A process of a store that runs until it is killed: `python lasting_process_script.py STORE ROLE ABOUT`.

The role is launcher, worker or deaf. A launcher is in the ledger of the sweep ABOUT, a worker has the claim on the
answers ABOUT. Then it prints `ready`. A deaf worker has begun an attempt, and never stops on request.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.store.ledger import Ledger


def main(root: str, role: str, about: str) -> None:
    store = Store(Path(root))
    if role == "launcher":
        Ledger(store, about).begin("axosweep infer")
    with nullcontext() if role == "launcher" else claim(store.folder(StepKind.INFER, about)):
        if role == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            store.folder(StepKind.INFER, about).attempt(1).path.mkdir()
        print("ready", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
