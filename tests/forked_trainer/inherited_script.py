"""Prints what a process has inherited, and ends with 5. Given `ranks`, it starts itself as a rank that does so."""

import json
import os
import signal
import subprocess
import sys
import tempfile

from huggingface_hub import constants

if __name__ == "__main__":
    if sys.argv[-1] == "ranks":
        variables = {**os.environ, "STARTED_BY": str(os.getpid()), "PYTHONPATH": "/of-a-rank"}
        sys.path.insert(0, "/of-its-worker")
        sys.exit(subprocess.run([sys.executable, sys.argv[0], "worker", "--rank", "1"], env=variables).returncode)
    started_by = os.environ.pop("STARTED_BY", "")
    inherited = {
        "words": sys.argv[1:],
        "path": [entry for entry in sys.path if "site-packages" not in entry],
        "temporary": tempfile.gettempdir(),
        "is a child": started_by == str(os.getppid()),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "leads a group": os.getpgid(0) == os.getpid(),
        "mask": os.umask(0),
        "read": sys.stdin.read(),
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],  # the last one is of this listing
        "ignored": [int(one) for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN],
        "hub": constants.ENDPOINT,
        "cache": constants.HF_HUB_CACHE,
        "imported": bool({"axolotl.train", "hydra.main", "wandb.sdk", "yaml"} & sys.modules.keys()),
    }
    with open("/proc/self/cmdline") as line:
        inherited["command line"] = line.read().rstrip("\0").split("\0")
    print(json.dumps(inherited))
    sys.exit(5)
