"""A probe: writes the surroundings of a step's process to found.json."""

import gc
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import datasets.config
import huggingface_hub.constants

OF_A_SHELL = ("_", "PWD", "OLDPWD", "SHLVL", "PYTHONPATH")

fds: dict[str, str] = {}
for name in os.listdir("/proc/self/fd"):
    with suppress(FileNotFoundError):
        fds[name] = os.readlink(f"/proc/self/fd/{name}").replace(str(os.getpid()), "self")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
handlers = {one.name: str(signal.getsignal(one)).partition(" at ")[0] for one in signal.Signals}
where = os.getcwd()
seen = {
    "environment": {k: v.replace(where, "HERE") for k, v in os.environ.items() if k not in OF_A_SHELL},
    "folder": os.path.basename(where),
    "umask": status["Umask"].strip(),
    "argv": sys.argv,
    "handlers": handlers,
    "ignored": status["SigIgn"].strip(),
    "blocked": status["SigBlk"].strip(),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
    "cores": sorted(os.sched_getaffinity(0)),
    "nice": os.nice(0),
    "descriptors": sorted(target.replace(os.path.dirname(where), "RUN") for target in fds.values()),
    "threads": threading.active_count(),
    "temporary": tempfile.gettempdir(),
    "offline": [huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE],
    "zone": time.tzname[0],
    "collects": gc.isenabled(),
    "modules": sys.path,
    "leads": os.getpid() == os.getpgid(0),
}
Path("found.json").write_text(json.dumps(seen))
