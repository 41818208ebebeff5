"""Functions that each show one thing that containers can do. Runs in containers, and does not know the server."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import modal

NAME = "small"
app = modal.App(NAME)
image = modal.Image.debian_slim().env({"FLAVOUR": "plain"})
notes = modal.Volume.from_name("notes", create_if_missing=True, version=2)
claims = modal.Dict.from_name("claims", create_if_missing=True)


@app.function(image=image)
def add(left: int, right: int = 1) -> int:
    print(f"adding {left} and {right}")
    return left + right


@app.function(image=image)
def describe() -> dict[str, object]:
    return {
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "home": sorted(os.listdir("/root")) if os.environ["HOME"] == "/root" else [],
        "tmp": os.listdir("/tmp"),
        "repository": os.listdir(os.environ["REPOSITORY"]) if "REPOSITORY" in os.environ else None,
        "prefix": sys.prefix,
        "path": sys.path,
        "arguments": sys.argv,
        "main": sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else "",
        "handlers": {one.name: str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM)},
    }


@app.function(image=image, secrets=[modal.Secret.from_name("keys", required_keys=["API_KEY"])])
def reveal() -> str:
    return os.environ["API_KEY"]


@app.function(image=image, retries=modal.Retries(max_retries=2, initial_delay=0.1))
def fail_before(name: str, enough: int) -> int:
    """Fails until this name was tried that often."""
    tries = int(claims.get(("tries", name), 0)) + 1
    claims.put(("tries", name), tries)
    if tries < enough:
        raise ValueError(f"try {tries}")
    return tries


@app.function(image=image, timeout=1)
def outlast(stubborn: int) -> str:
    """Ignores the first cancellation when stubborn is 1, and SIGINT, too, when it is 2."""
    return _sleep_through(stubborn)


@app.function(image=image)
def wait(seconds: float, tag: str = "") -> str:
    print(f"waiting {tag}")
    claims.put(("started", tag), claims.get(("started", tag), 0) + 1)
    time.sleep(seconds)
    return tag


@app.function(image=image)
def sleep_on(stubborn: int) -> str:
    return _sleep_through(stubborn, say_so=True)


def _sleep_through(stubborn: int, *, say_so: bool = False) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if say_so:  # in here, since the test may interrupt it as soon as this has reached the server
                say_so = False
                claims.put("sleeping", True)
            time.sleep(30)
        except BaseException as error:
            claims.put("signals", [*claims.get("signals", []), type(error).__name__])
            if not stubborn:
                raise
            stubborn -= 1
    return "slept"


@app.function(image=image)
def die(code: int) -> None:
    os._exit(code)


@app.function(image=image, volumes={"/notes": notes})
def write(name: str, text: str, commit: bool) -> str:
    path = Path("/notes") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if commit:
        notes.commit()
    return os.environ["MODAL_TASK_ID"]


@app.function(image=image, volumes={"/notes": notes})
def read(name: str, reload: bool) -> str | None:
    if reload:
        notes.reload()
    path = Path("/notes") / name
    return path.read_text() if path.exists() else None


@app.function(image=image, volumes={"/notes": notes})
def reload_while(held: str) -> str:
    """Reload while a file is open here, or open in a child, or while the working directory is in the Volume."""
    Path("/notes/held").write_text("held")
    notes.commit()
    child, stream = None, None
    match held:
        case "open":
            stream = open("/notes/held")  # noqa: SIM115
        case "child":
            child = subprocess.Popen(["sleep", "20"], stdin=open("/notes/held"))  # noqa: SIM115
        case "cwd":
            os.chdir("/notes")
    try:
        notes.reload()
    except RuntimeError as error:
        return str(error)
    finally:
        os.chdir("/root")
        if stream:
            stream.close()
        if child:
            child.kill()
            child.wait()
    notes.reload()
    return "reloaded"


@app.function(image=image, volumes={"/notes": notes.with_mount_options(read_only=True)})
def write_read_only() -> str:
    try:
        Path("/notes/new").write_text("no")
    except OSError as error:
        return str(error.strerror)
    return "written"


@app.function(image=image)
def spawn_next(count: int) -> list[str]:
    """Starts others of its own app by name, without waiting for them."""
    other = modal.Function.from_name(NAME, "wait").with_options(gpu="H100:2", max_containers=2)
    return [other.spawn(0.1, f"next-{number}").object_id for number in range(count)]


@app.function(image=image)
def claim(key: str) -> bool:
    return claims.put(key, os.environ["MODAL_TASK_ID"], skip_if_exists=True)


@app.function(image=image, gpu=["H100:2", "A100-80GB:2"])
def ranked() -> str:
    return "ran"


@app.function(image=image)
def import_here_and_in_a_child(*names: str) -> dict[str, dict[str, str]]:
    """Where the entrypoint's own process finds each module, and where a process that it starts finds it."""
    look = "import importlib.util, json, sys; find = lambda n: importlib.util.find_spec(n)\n"
    tell = "print(json.dumps({n: str(find(n) and find(n).origin) for n in sys.argv[1:]}))"
    child = subprocess.run([sys.executable, "-c", look + tell, *names], check=True, capture_output=True, text=True)
    specs = {name: importlib.util.find_spec(name) for name in names}
    here = {name: str(spec and spec.origin) for name, spec in specs.items()}
    return {"here": here, "child": json.loads(child.stdout)}


@app.function(image=image)
def count_up(stop: int) -> Iterator[int]:
    yield from range(stop)
