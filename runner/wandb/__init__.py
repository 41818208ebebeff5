"""W&B: what is uploaded to it, read from it and made in it. A process of its own (runner.wandb.process) talks to it."""
