"""Claim a folder and keep it locked: `python claim_script.py FOLDER hold|fork|race|keep [WON|LOCK]`.

`fork` leaves the lock to a forked child, and dies of SIGKILL. `race` creates the folder WON, which only one process can
do. `keep` claims nothing: it keeps the inherited descriptor LOCK, and has a forked child.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from modal_app.store.claim import claim, keep
from modal_app.store.layout import StepFolder


def main(folder: str, how: str, *won: str) -> None:
    if how == "keep":
        keep(map(int, won))
        child = os.fork()
        if not child:  # it has closed the lock
            print("held", flush=True)
        time.sleep(60 if child else 2)
        return
    with claim(StepFolder(Path(folder), Path("done")), "its sweep"):
        if how == "fork" and os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "race":
            Path(*won).mkdir()
        print("held", flush=True)
        time.sleep(2 if how == "fork" else 60)


if __name__ == "__main__":
    main(*sys.argv[1:])
