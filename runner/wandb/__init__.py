"""W&B: asked, uploaded to and read by a process of its own."""
