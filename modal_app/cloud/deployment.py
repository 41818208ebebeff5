"""What is deployed to Modal: one image with the trainer in it, two Volumes, the functions. One builder.

Everything that can be pinned is pinned: the base by tag or digest, uv, the trainer by its hashes, more packages by
version. Only the apt packages are not: they are those of the day on which Modal first built the layer.
"""

from __future__ import annotations

import re

import modal

from modal_app.cloud import functions
from modal_app.cloud.job import CACHE_MOUNT, MAX_ATTEMPTS, RUNS_MOUNT
from modal_app.cloud.meter import CPU_STEP
from modal_app.cloud.settings import AFTER_FUNCTION, LOCK, PYTHON, Deployment, cards, requested, train_function
from modal_app.process.attention import FOLDER, local_kernels
from modal_app.store.smaller_batch import MOST_TIMES
from modal_app.store.sources import HERE

UV = "0.13.9"
"""As in the launcher's own lock, which builds the trainer on this machine."""
RETRIES = modal.Retries(max_retries=MAX_ATTEMPTS - 1 + MOST_TIMES + 3, initial_delay=5.0, backoff_coefficient=2.0)
"""Modal counts calls that raise or time out; it restarts a dead or preempted container forever. We count attempts that
died (`attempts`), whatever starts the next one. Modal's count must not run out first, because then no outcome would be
written. So: one for each worker that may die in a live container, one for each smaller micro batch (on_oom=halve), and
three for a Volume or a Dict that fails, with pauses of 5 to 60 s."""
STARTUP_S = 3600
"""Modal's default is the call's timeout: a container that hangs before its first line would be rented for a day."""
NOTIFY_S = 60
"""Much longer than a webhook gets."""
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_XET_HIGH_PERFORMANCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def trainer_image(deployment: Deployment) -> modal.Image:
    """The trainer on its base, bytecode compiled.

    With `trainer: lock` it is the one that was tested locally. With `trainer: image` the base brings its own; unless it
    is the same Axolotl, the build fails, since axosweep's plugin and lists of keys are for that version.
    """
    own = deployment.trainer == "image"
    image = modal.Image.from_registry(deployment.image, add_python=None if own else PYTHON)
    image = image.entrypoint([])  # an official image would start JupyterLab
    image = image.apt_install("git", "build-essential", *deployment.apt)
    if own:
        check = f"import importlib.metadata as m; v = m.version('axolotl'); assert v == '{_axolotl()}', v"
        image = image.run_commands(f'python -c "{check}"')
    else:
        # No dependencies: the lock is complete, and resolving again would fail at Axolotl's own zstandard pin.
        image = image.uv_pip_install(
            requirements=[str(LOCK)], extra_options="--no-deps --require-hashes", uv_version=UV
        )
    if deployment.packages:
        image = image.uv_pip_install(*deployment.packages, extra_options="--no-deps", uv_version=UV)
    if deployment.kernels:
        image = _with_kernels(image, deployment.kernels)
    return image.env(ENVIRONMENT).add_local_python_source("modal_app")


def _with_kernels(image: modal.Image, kernels: tuple[str, ...]) -> modal.Image:
    """Download kernels when the image is built: otherwise transformers would do it while a GPU waits."""
    script = "/trainer/attention.py"
    image = image.add_local_file(HERE / "process" / "attention.py", script, copy=True)
    image = image.run_commands(f"python {script} {FOLDER} {' '.join(kernels)}")
    return image.env({"LOCAL_KERNELS": local_kernels(kernels)})


def _axolotl() -> str:
    """The version that the lock names."""
    (version,) = re.findall(r"^axolotl==([\w.]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return str(version)


def build_app(deployment: Deployment) -> modal.App:
    """The app, not yet deployed."""
    # The image has the sources. Modal would add them again, and list and hash them once for each function.
    app = modal.App(deployment.app_name, include_source=False)
    image = trainer_image(deployment)
    cache = modal.Volume.from_name(deployment.cache_volume, create_if_missing=True, version=2)
    runs = modal.Volume.from_name(deployment.runs_volume, create_if_missing=True, version=2)
    secrets = [modal.Secret.from_name(deployment.secret)]
    for function in (functions.fetch, functions.preprocess):
        app.function(
            image=image,
            secrets=secrets,
            volumes={str(CACHE_MOUNT): cache, str(RUNS_MOUNT): runs},
            timeout=deployment.timeout_s,
            retries=RETRIES,
            **requested(CPU_STEP),
            startup_timeout=STARTUP_S,
        )(function)
    app.function(image=image, secrets=secrets, timeout=NOTIFY_S, retries=RETRIES, startup_timeout=STARTUP_S)(
        functions.notify
    )
    trainers = [((), functions.after), *((gpus, functions.train) for gpus in ((), *deployment.gpu_lists))]
    for gpus, function in trainers:
        # Options that are bound to a call might replace the list, so its reservation is deployed. `train` gets its
        # reservation with each call.
        reserved = requested(deployment.reserved(cards(gpus[0]))) if gpus else {}
        app.function(
            **reserved,
            ephemeral_disk=deployment.disk_gib and deployment.disk_gib * 1024,
            startup_timeout=STARTUP_S,
            name=AFTER_FUNCTION if function is functions.after else train_function(gpus),
            gpu=list(gpus) or None,
            image=image,
            secrets=secrets,
            volumes={str(CACHE_MOUNT): cache.with_mount_options(read_only=True), str(RUNS_MOUNT): runs},
            timeout=deployment.timeout_s,
            retries=RETRIES,
            single_use_containers=function is functions.after or not deployment.reuse,
        )(function)
    return app
