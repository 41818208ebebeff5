"""The command line and conf/ into experiments: only here, in the application and the plugins, Hydra is known."""
