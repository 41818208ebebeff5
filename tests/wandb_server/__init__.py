"""A fake W&B: as much of the service's own protocol as the unmodified SDK needs to run, resume, sync and be read.

It shows that the SDK and our code behave, not that the real service agrees. What it does not know, it answers with an
error and keeps the name of (`WandbServer.unknown`), so that a test cannot pass by its silence.
"""

from tests.wandb_server.records import Run
from tests.wandb_server.server import WandbServer, serve_wandb

__all__ = ["Run", "WandbServer", "serve_wandb"]
