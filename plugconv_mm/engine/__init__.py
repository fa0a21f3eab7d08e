"""Classes that configs name: hooks, evaluators, constructors of optimizers, and strategies."""
