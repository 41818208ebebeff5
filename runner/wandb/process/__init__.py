"""The process that talks to W&B, and the only code that imports its SDK. Nothing else imports from this folder."""
