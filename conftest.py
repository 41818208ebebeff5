"""How pytest runs the tests: in which order, in how many processes, with which signals."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path

import hypothesis
import pytest

from runner.environment import trainer_environment
from tests.forked_trainer import popen

# A machine that also trains is slow at times, so the time of an example says nothing about the code.
hypothesis.settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-machine")

# No preloaded trainer outlives its command unless a test says so, since each takes a gigabyte. The few hundred rows of
# a test are tokenized in the trainer's own process, since every process that Axolotl starts for that imports the
# library of datasets first. The containers of the local Modal have that from their settings, and the sweep that many
# tests share is trained without it. Not in pytest_configure: the conftest.py of a folder that is named on the command
# line is imported before.
os.environ.setdefault("AXOSWEEP_WARM_IDLE_S", "0")
os.environ.setdefault("AXOLOTL_DATASET_NUM_PROC", "0")

LONGEST = (
    "test_work.py", "test_train.py", "test_sweeps.py", "test_searches.py", "test_modal_losses.py",
    "test_commands_of_documents.py", "test_modal_killed.py", "test_report_page.py", "test_wandb.py", "test_kills.py",
    "test_modal_after.py", "test_modal_hub.py", "test_evaluate.py", "test_own_data.py", "test_serve.py",
    "test_modal_costs.py", "test_fast_compose.py", "test_next_hydra.py", "test_rungs.py", "test_modal.py",
    "test_attention.py", "test_modal_cancel.py", "test_modal_budget.py", "test_plain_axolotl.py",
    "test_first_launch.py", "test_modal_gpus.py", "test_modal_rungs.py",
)  # fmt: skip
"""By `--durations`, the longest first; but not two at the start that wait for the same sweep to be trained."""

IN_MEMORY, ROOM = Path("/dev/shm"), 8 * 1024**3
"""Temporary files are in memory if there is room: they are many and small, and a file system on a disk takes a tenth of
the time of all tests. They are removed at the end; to look at them, set TMPDIR."""


def pytest_configure(config: pytest.Config) -> None:
    """What the commands of tests inherit.

    Signals as in a terminal: the tests may be started by nohup or in a script's background, where some are ignored.
    Bytecode is stored, whatever the environment says: hundreds of processes import the same modules.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        if "TMPDIR" not in os.environ:
            _write_to_memory()
        _start_broker(config)
    popen.install()


def _write_to_memory() -> None:
    if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= ROOM:
        folder = tempfile.mkdtemp(prefix="t-", dir=IN_MEMORY)  # a socket's name is short
        # At the exit of this process, after multiprocessing has removed a folder of its own in it.
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-200)
        os.environ["TMPDIR"] = tempfile.tempdir = folder


def _start_broker(config: pytest.Config) -> None:
    """One for all of pytest's processes, which inherit its name; it ends with this one."""
    if sys.platform != "linux":
        return
    os.environ[popen.BROKER] = name = f"axosweep-tests-{os.getpid()}"
    python = trainer_environment.folder() / "bin" / "python"
    broker = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_trainer.broker_script", name, python],
        cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert broker.stdin is not None
    assert broker.stdout is not None
    broker.stdout.readline()  # it listens
    config.add_cleanup(lambda: _end(broker))


def _end(broker: subprocess.Popen[bytes]) -> None:
    broker.communicate()


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Hydra gives the root logger a handler for the output of one test, and what later tests log would fail to reach
    it. `--info` has it log everything: every later composition would be made twice, to describe it.
    """
    before, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.setLevel(level)
    for handler in set(logging.root.handlers).difference(before):
        logging.root.removeHandler(handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes more than there are cores: tests that talk to processes and servers wait for half of their time.
    The fast tests wait less, and each process imports what it tests.
    """
    return len(os.sched_getaffinity(0)) + (1 if "not slow" in config.option.markexpr else 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays until the end. The garbage collector looks at none of it, or it would take
    a twentieth of the time of the tests, and it looks for young garbage less often than by default.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, *gc.get_threshold()[1:])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of fast tests first, so that a mistake shows early; then the longest files, so that none of them is the
    last one and keeps a single process busy. `make test` tells xdist to leave that order as it is.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    longest = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path in slow, longest.get(item.path.name, len(LONGEST))))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect no doctests under tests/: a helper there may be a script for another Python. Nor look for one in a
    module that has none, which would be imported for it.
    """
    if collection_path.suffix != ".py" or collection_path.name.startswith(("test_", "conftest")):
        return None
    in_tests = Path(__file__).parent / "tests" in collection_path.parents
    return True if in_tests or ">>>" not in collection_path.read_text(encoding="utf-8") else None
