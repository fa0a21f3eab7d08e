"""Running: hooks, optimizers, and what the command-line tools share."""
