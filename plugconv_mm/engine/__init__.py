"""Classes that configs name: hooks, constructors of optimizers, and strategies."""
