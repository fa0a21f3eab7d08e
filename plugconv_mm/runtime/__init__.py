"""What the tools share: reading and checking configs, building models, running, inference, dry runs."""
