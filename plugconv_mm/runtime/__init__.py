"""Code that the tools share: reading and checking configs, building models, running them, predictions, dry runs."""
