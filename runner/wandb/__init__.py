"""W&B: uploads, reads and objects created in it. Only a separate process (runner.wandb.process) talks to it."""
