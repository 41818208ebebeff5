"""A fake W&B: as much of the service's own protocol as the unmodified SDK needs to run, resume, sync and read.

It shows how the SDK and our code behave, not that the real service agrees. It answers unknown requests with an error
and records their names (`WandbServer.unknown`), so that a test cannot pass unnoticed.
"""

from tests.wandb_server.records import Run
from tests.wandb_server.server import WandbServer, serve_wandb

__all__ = ["Run", "WandbServer", "serve_wandb"]
