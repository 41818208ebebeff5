"""What happens in one container that writes its record: `python meter_script.py CASE [ARGUMENT...]`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from modal_app.cloud.meter import Meter, Reservation
from modal_app.cloud.usage import cpu_seconds


def meter(step: str, attempt: int = 1) -> Meter:
    return Meter(Path(step), step=step, call="fc-1", attempt=attempt, reserved=Reservation(4.0, 16.0))


def two_cards(says: str, *ticks: str) -> None:
    """A tick for each of these outputs of nvidia-smi."""
    one = meter("train")
    for cards in ticks:
        Path(says).write_text(cards)
        one.tick()
    one.end()


def late_call() -> None:
    time.sleep(0.5)
    one = meter("train")
    time.sleep(0.2)
    one.end()


def killed() -> None:
    one = meter("train")
    time.sleep(0.3)
    one.tick()
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def clock_set_back() -> None:
    """Set the clock back by ten minutes, while the container works."""
    one, clock = meter("train"), time.time
    time.sleep(0.3)
    time.time = lambda: clock() - 600
    one.tick()
    one.end()


def several_steps() -> None:
    for step in ("first", "second", "first"):
        one = meter(step)
        time.sleep(0.1)
        one.end()
        time.sleep(0.1)


def copies_and_ends() -> None:
    """Prints the record while it copies, and the last one."""
    one, path = meter("train"), Path("train", f"{os.environ['MODAL_TASK_ID']}.json")
    with one.copying():
        time.sleep(0.1)
        one.note()
        print(json.dumps(json.loads(path.read_text(encoding="utf-8"))))
        time.sleep(0.1)
    with one.copying():
        time.sleep(0.05)
    one.end()
    one.end_container("a child process was left")
    print(json.dumps(json.loads(path.read_text(encoding="utf-8"))))


def two_attempts() -> None:
    meter("train", attempt=2).end()
    meter("train", attempt=3).end()


def ticks_and_trains() -> None:
    one = meter("train")
    one.tick()
    one.end()
    print("trained")


def processor_time() -> None:
    """Prints what a child that takes half a second adds."""
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    after = cpu_seconds()
    assert before is not None
    assert after is not None
    print(after - before)


CASES: Mapping[str, Callable[..., None]] = {
    one.__name__: one
    for one in (
        two_cards,
        late_call,
        killed,
        clock_set_back,
        several_steps,
        copies_and_ends,
        two_attempts,
        ticks_and_trains,
        processor_time,
    )
}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])
