"""Prints what a process has inherited, and ends with 5."""

import json
import os
import signal
import sys

from huggingface_hub import constants

if __name__ == "__main__":
    inherited = {
        "words": sys.argv[1:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "leads a group": os.getpgid(0) == os.getpid(),
        "mask": os.umask(0),
        "read": sys.stdin.read(),
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],  # the last one is of this listing
        "ignored": [int(one) for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN],
        "hub": constants.ENDPOINT,
        "imported": "axolotl.train" in sys.modules,
    }
    with open("/proc/self/cmdline") as line:
        inherited["command line"] = line.read().rstrip("\0").split("\0")
    print(json.dumps(inherited))
    sys.exit(5)
