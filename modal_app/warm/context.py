"""The context of a command, which a worker that is forked from the preloaded trainer takes on.

A fork must behave like a process started by the command: with the command's environment, folder, umask, limits and
cores, and with a random state of its own. What a library reads when it is imported cannot be changed later. So those
variables (`import_environment`) belong to the server, and another value of one of them needs another server.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.process.attempt import base_environment
from modal_app.store.step import Device

READ_AT_IMPORT = (
    # interpreter, loader, C libraries
    "PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "TZ", "HOME", "PATH", "VIRTUAL_ENV", "OMP_", "KMP_", "GOMP_",
    "MKL_", "OPENBLAS_", "BLIS_", "NVPL_", "VECLIB_", "NUMEXPR_", "DYLD_",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    # numbers
    "NPY_", "NUMPY_", "NUMBA_", "LLVMLITE_", "PANDAS_", "SCIPY_", "SKLEARN_", "SYMPY_", "MPMATH_", "SAGE_", "NETWORKX_",
    "JOBLIB_", "LOKY_", "PILLOW_", "ARROW_", "FAKE_", "FX_", "AOT", "PARTITIONER_", "INDUCTOR_", "CUTLASS_", "CUTEDSL_",
    "COMPILE_STROBELIGHT_", "DUMP_AOTI", "ENABLE_", "EAGER_IMPORT", "BSR_", "PT2_", "LOG_AUTOTUNE", "LOG_TLPARSE",
    "TORCH", "PYTORCH_", "TRITON_", "KINETO_", "XLA_", "CUDA_", "NCCL_", "GLOO_", "NPU_", "UNSAFE_SKIP_FSDP",
    # Hugging Face, Axolotl, and what comes with them
    "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "DATASETS_", "EVALUATE_", "ACCELERATE_", "TOKENIZERS_", "RAYON_", "PEFT_",
    "TRL_", "BNB_", "BITSANDBYTES_", "KERNELS_", "LOCAL_KERNELS", "DISABLE_KERNEL", "USE_", "AXOLOTL_", "DS_",
    "FSSPEC_", "DO_NOT_TRACK", "DISABLE_TELEMETRY", "LOG_LEVEL", "LOGLEVEL", "PROTOCOL_BUFFERS_", "PYDANTIC_",
    "AIOHTTP_", "FROZENLIST_", "MULTIDICT_", "PROPCACHE_", "YARL_", "PSUTIL_", "OTEL_", "OPENID_", "OAUTH_SCOPES",
    "TEMPORARILY_DISABLE_PROTOBUF", "GRADIO_", "SOURCE_DATE_EPOCH", "CC", "CXX",
    "DEEPSPEED_", "MSGPACK_", "DISABLE_LOGS_WHILE",
    "WANDB_HTTP_TIMEOUT", "WANDB_LAUNCH_START_TIMEOUT", "WANDB_ONLY_INCLUDE", "WANDB_DISABLE_CACHE",
)  # fmt: skip
"""Prefixes of the variables that affect an import. A test measures them, except those that C libraries read."""
MODULES = "PYTHONPATH"
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
NOT_A_SECRET = ("TOKENIZERS_", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "TORCH_")
OF_A_STEP = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE")
"""Set for each step; preload.become_a_fresh_process applies them."""
MORE_LIKELY_KILLED = 100
"""Thousandths of the machine's memory. When memory runs out, the kernel should kill a child and not its parent."""


def import_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server for a command with these variables: what imports read, and no secret. PYTHONPATH is
    relative to the command's folder, so its entries are made absolute.
    """
    chosen = {name: value for name, value in variables.items() if _is_read_at_import(name)}
    if chosen.get(MODULES):
        chosen[MODULES] = os.pathsep.join(map(os.path.abspath, chosen[MODULES].split(os.pathsep)))
    return chosen


def _is_read_at_import(name: str) -> bool:
    secret = any(part in name for part in SECRET) and not name.startswith(NOT_A_SECRET)
    return name.startswith(READ_AT_IMPORT) and not name.startswith(OF_A_STEP) and not secret


@dataclass(frozen=True, slots=True)
class Context:
    """The context of a command, for its children. Sent only over the private socket, since the environment contains
    secrets."""

    environment: Mapping[str, str]
    folder: str
    umask: int
    limits: Mapping[str, Sequence[int]]
    """RLIMIT_ name -> soft, hard."""
    cores: Sequence[int]
    """The cores that it may run on; empty if the system does not say."""
    ignored: Sequence[int] = ()
    """The signals that it ignores, such as SIGHUP under nohup, and that its child processes would ignore, too."""

    @classmethod
    def of_this_process(cls, environment: Mapping[str, str]) -> Context:
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        ignored = [int(number) for number in _inherited_signals() if signal.getsignal(number) is signal.SIG_IGN]
        return cls(dict(environment), _folder(), _umask(), limits(), cores, ignored)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Context:
        return cls(**raw)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def enter(self) -> None:
        """Give this new fork the command's context."""
        os.environ.clear()
        os.environ |= dict(self.environment)
        os.environ |= base_environment(Device.CPU)
        time.tzset()
        with contextlib.suppress(OSError):  # the folder may be gone; a worker has a folder of its own
            os.chdir(self.folder)
        os.umask(self.umask)
        for name, (soft, hard) in self.limits.items():
            with contextlib.suppress(OSError, ValueError):  # more than this process may have: its limit stays
                resource.setrlimit(getattr(resource, name), (soft, hard))
        if self.cores and sys.platform == "linux":
            with contextlib.suppress(OSError):  # cores that no longer exist
                os.sched_setaffinity(0, self.cores)
        for number in _inherited_signals():
            if number in self.ignored:
                signal.signal(number, signal.SIG_IGN)
            elif signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        tempfile.tempdir = None
        _be_killed_first()


def limits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _inherited_signals() -> list[signal.Signals]:
    """The signals that a process ignores if its parent did. Python sets SIGPIPE and SIGXFSZ itself in each process."""
    fixed = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
    return [signal.Signals(n) for n in signal.valid_signals() if n in set(signal.Signals) and n not in fixed]


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # removed while the command runs
        return os.sep


def _umask() -> int:
    """Read from /proc if possible, since the call that reads it also sets it, for all threads."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), None)
    if found is None:
        found = os.umask(0o022)
        os.umask(found)
    return found


def _be_killed_first() -> None:
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        score.write_text(str(min(1000, int(score.read_text()) + MORE_LIKELY_KILLED)))
