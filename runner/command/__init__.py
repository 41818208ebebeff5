"""One file per verb, named after the verb, and the Hydra application, which runs a command line without a verb.

A verb's file has `parser()`, which defines its command line, and `main(words)`, which returns the exit code. A new verb
is a new file and a line in VERBS.
"""

from __future__ import annotations

from collections.abc import Mapping

VERBS: Mapping[str, str] = {
    "plan": "plan",
    "status": "status",
    "compare": "compare",
    "best": "best",
    "sync": "sync",
    "wandb-view": "wandb_view",
    "report": "report",
    "watch": "watch",
    "data": "data",
    "merge": "merge",
    "eval": "eval",
    "settle": "settle",
    "resume": "resume",
    "infer": "infer",
    "attach": "attach",
    "logs": "logs",
    "cancel": "cancel",
    "serve": "serve",
    "ls": "ls",
    "pull": "pull",
    "rm": "rm",
    "gc": "gc",
    "push": "push",
    "import": "import_config",
    "init": "init",
    "doctor": "doctor",
    "warm": "warm",
    "setup": "setup",
    "completion": "completion",
    "__complete": "complete",
}
"""Each verb's module, imported when the verb is used."""
